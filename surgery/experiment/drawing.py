"""Rows and prompts -> pictures, by an engine, while people are told how far it is."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from PIL import Image

from surgery.experiment.engines import Batch, Engine, SerialEngine
from surgery.experiment.rows import ModelRow, VariantRow
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
    total = done + sum(len(batch.numbers) for batch in batches)
    with ExitStack() as stack:
        meter = stack.enter_context(show_progress(total, unit="picture", label="drawing", done=done))
        notes = stack.enter_context(RowNotes(meter, run.texts))
        for batch, images in engine.draw(notes.announced(batches), prompts, run.call):
            meter.advance(len(images))
            yield batch, images


class RowNotes(ExitStack):
    """Tells a meter which row is drawn, and at which step it is, so that long pictures show life.

    Within it a pipeline is listened to from its first row on, and answers from `texts` what was encoded before.
    """

    def __init__(self, meter: Meter, texts: dict[str, Any]) -> None:
        super().__init__()
        self.meter, self.texts = meter, texts
        self.name = ""
        self.forwards = 0
        self.met: set[int] = set()

    def announced(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; each is told as it is taken."""
        for batch in batches:
            self.name, self.forwards = batch.row.name, 0
            self.meter.note(self.name)
            if isinstance(batch.row, (ModelRow, VariantRow)):
                self.meet(batch.row.pipe)
            yield batch

    def meet(self, pipe: Any) -> None:
        """From here on, the forwards of its transformers count, and prompts are encoded once."""
        if id(pipe) not in self.met:
            self.met.add(id(pipe))
            self.enter_context(text_encoded_once([pipe], self.texts))
            for model in transformers_of(pipe):
                self.callback(model.register_forward_hook(self._count).remove)

    def _count(self, module: Any, args: Any, output: Any) -> None:  # noqa: ARG002  (torch's signature)
        self.forwards += 1
        self.meter.note(f"{self.name}, step {self.forwards}")
