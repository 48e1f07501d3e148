"""Rows and prompts -> pictures, by an engine, while people are told how far it is."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from PIL import Image

from surgery.experiment.bench import Bench
from surgery.experiment.engines import SERIAL, Engine, Tell
from surgery.experiment.rows import ModelRow, OwnModelRow, Row, VariantRow
from surgery.experiment.run import Run
from surgery.pipelines.draw import SHARED
from surgery.pipelines.guidance import transformers_of
from surgery.pipelines.shared_text import text_encoded_once
from surgery.progress import Meter, show_progress


@dataclass(frozen=True)
class DrawUnit:
    """The pictures of a row, by its name, with these numbers: one call of its pipeline."""

    row: str
    numbers: range

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.row}, pictures {self.numbers[0]} to {self.numbers[-1]}"

    @property
    def size(self) -> int:
        """How many pictures it makes."""
        return len(self.numbers)

    def run(self, bench: Bench, tell: Tell) -> list[Image.Image]:
        """The pictures; a prompt is encoded once for all rows of a bench, and each step is a sign of life."""
        row = bench.row(self.row)
        tell(0, row.name)
        bench.let_go_but([row.name])
        with ExitStack() as stack:
            if isinstance(row, (ModelRow, VariantRow, OwnModelRow)):
                stack.enter_context(text_encoded_once([row.pipe], bench.run.texts))
                count = _step_counter(row.name, tell)
                for transformer in transformers_of(row.pipe):
                    stack.callback(transformer.register_forward_hook(count).remove)
            images = row.draw(bench.prompts, self.numbers, bench.run)
        tell(len(images), "")
        return images


def draw_units(rows: Sequence[Row], count: int, run: Run) -> list[DrawUnit]:
    """The pictures 0 to `count` of each row, in batches; all of a row in one where they share their noise."""
    batch_size = count if run.noise == SHARED else run.request.batch_size
    starts = range(0, count, batch_size)
    return [DrawUnit(row.name, range(start, min(start + batch_size, count))) for row in rows for start in starts]


def draw(
    bench: Bench, units: Sequence[DrawUnit], *, done: int = 0, engine: Engine = SERIAL
) -> Iterator[tuple[DrawUnit, list[Image.Image]]]:
    """The pictures of each unit as it is drawn; `done` pictures are there already."""
    total = done + sum(unit.size for unit in units)
    with show_progress(total, unit="picture", label="drawing", done=done) as meter:
        for number, images in engine.run(bench, units, telling(meter)):
            yield units[number], images


def telling(meter: Meter) -> Tell:
    """What engines tell, shown by a meter."""

    def tell(number: int, text: str) -> None:
        if text:
            meter.note(text)
        if number:
            meter.advance(number)

    return tell


def _step_counter(name: str, tell: Tell) -> Any:
    """A hook of transformers that tells of each of their forwards."""
    steps = 0

    def count(module: Any, args: Any, output: Any) -> None:  # noqa: ARG001  (torch's signature)
        nonlocal steps
        steps += 1
        tell(0, f"{name}, step {steps}")

    return count
