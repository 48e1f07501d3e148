"""Where rows are drawn: an engine takes batches of rows, in any order of its own, and hands back their pictures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from surgery.experiment.rows import Row


@dataclass(frozen=True)
class Batch:
    """The pictures of a row with these numbers, which one call of its pipeline draws."""

    row: Row
    numbers: range


class Engine(Protocol):
    """Draws batches of one run; each comes back once, as soon as it is drawn."""

    def draw(
        self, batches: Iterable[Batch], prompts: Sequence[str], call: Mapping[str, Any]
    ) -> Iterator[tuple[Batch, list[Image.Image]]]:
        """The pictures of each batch."""


class SerialEngine:
    """One batch after the other, in this process."""

    def draw(
        self, batches: Iterable[Batch], prompts: Sequence[str], call: Mapping[str, Any]
    ) -> Iterator[tuple[Batch, list[Image.Image]]]:
        """The pictures of each batch, in their order."""
        for batch in batches:
            yield batch, batch.row.draw(prompts, batch.numbers, call)


def batches_of(row: Row, count: int, batch_size: int) -> list[Batch]:
    """The pictures 0 to `count` of a row, in batches."""
    return [Batch(row, range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
