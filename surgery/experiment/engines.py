"""The one seam at which rows are run: an engine does units of work on a bench, and hands back each as it is done."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from surgery.experiment.bench import Bench

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
Tell = Callable[[int, str], object]  # so many more pictures or predictions are done; what is done now, or nothing


class Unit(Protocol[Result_co]):
    """A piece of work that is data: any process that has the bench open can do it, with the same result to the bit."""

    @property
    def label(self) -> str:
        """What people call it."""

    @property
    def size(self) -> int:
        """How many pictures or predictions it makes."""

    def run(self, bench: Bench, tell: Tell) -> Result_co:
        """Do it; `tell` is told of `size` in all, and of what is done now."""


class Engine(Protocol):
    """Does units of work."""

    def run(self, bench: Bench, units: Sequence[Unit[Result]], tell: Tell) -> Iterator[tuple[int, Result]]:
        """The number of each unit and its result, once each, as they are done: in any order."""


class SerialEngine:
    """One unit after the other, in this process."""

    def run(self, bench: Bench, units: Sequence[Unit[Result]], tell: Tell) -> Iterator[tuple[int, Result]]:
        """The results in their order."""
        for number, unit in enumerate(units):
            yield number, unit.run(bench, tell)


SERIAL = SerialEngine()


def in_order(results: Iterator[tuple[int, Result]]) -> Iterator[Result]:
    """The results by the numbers of their units, for sums that hang on the order: what comes before its turn waits."""
    waiting: dict[int, Result] = {}
    turn = 0
    for number, result in results:
        waiting[number] = result
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def tell_nobody(number: int, text: str) -> None:
    """Nobody listens."""
