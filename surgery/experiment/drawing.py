"""Rows and prompts -> pictures, by an engine, while people are told how far it is."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from PIL import Image

from surgery.experiment.engines import Batch, Engine, SerialEngine
from surgery.experiment.rows import ModelRow
from surgery.experiment.run import Run
from surgery.pipelines.guidance import transformers_of
from surgery.pipelines.shared_text import text_encoded_once
from surgery.progress import Meter, show_progress

SERIAL = SerialEngine()


def draw_batches(
    run: Run,
    batches: Sequence[Batch],
    prompts: Sequence[str],
    *,
    done: int = 0,
    engine: Engine = SERIAL,
) -> Iterator[tuple[Batch, list[Image.Image]]]:
    """The pictures of each batch as it is drawn; `done` pictures are there already.

    Prompts are encoded once for all rows of the run.
    """
    rows = [batch.row for batch in batches]
    pipes = list({id(row.pipe): row.pipe for row in rows if isinstance(row, ModelRow)}.values())
    total = done + sum(len(batch.numbers) for batch in batches)
    with ExitStack() as stack:
        meter = stack.enter_context(show_progress(total, unit="picture", label="drawing", done=done))
        notes = StepNotes(meter)
        stack.enter_context(text_encoded_once(pipes, run.texts))
        stack.enter_context(notes.counting(pipes))
        for batch, images in engine.draw(notes.announced(batches), prompts, run.call):
            meter.advance(len(images))
            yield batch, images


class StepNotes:
    """Tells a meter which row is drawn, and at which step it is, so that long pictures show life."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.name = ""
        self.forwards = 0

    def announced(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; each is told as it is taken."""
        for batch in batches:
            self.name, self.forwards = batch.row.name, 0
            self.meter.note(self.name)
            yield batch

    @contextmanager
    def counting(self, pipes: Sequence[Any]) -> Iterator[None]:
        """Within it, every forward of their transformers counts."""
        models = [model for pipe in pipes for model in transformers_of(pipe)]
        handles = [model.register_forward_hook(self._count) for model in models]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count(self, module: Any, args: Any, output: Any) -> None:  # noqa: ARG002  (torch's signature)
        self.forwards += 1
        self.meter.note(f"{self.name}, step {self.forwards}")
