"""Units of work -> results, by workers that may be lost at any time: what a lost one had in hand is done again."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from surgery.errors import WorkerError
from surgery.experiment.engines import Tell, Unit

Result = TypeVar("Result")
MAX_LOSSES = 3  # of the workers of one unit, or of workers that are not ready yet


@dataclass(frozen=True)
class Ready:
    """A worker has opened the bench."""


@dataclass(frozen=True)
class Done:
    """A worker has done its unit."""

    result: Any


@dataclass(frozen=True)
class Lost:
    """A worker is no more."""

    reason: str


News = Ready | Done | Lost


class Crew(Protocol):
    """Workers by number, each a process of its own."""

    def hire(self) -> int:
        """Have another worker; `wait` says when it is ready."""

    def give(self, worker: int, unit: Unit[Any]) -> None:
        """Have a worker that is ready do a unit."""

    def wait(self) -> tuple[int, News]:
        """The next that happens to one of them; raises what a unit or the opening of the bench raised."""

    def dismiss(self, worker: int) -> None:
        """Have a worker no longer, whatever it does."""


class Dispatcher:
    """Gives units to at most `num_workers` workers of a crew, which stay from one `run` to the next."""

    def __init__(self, crew: Crew, num_workers: int) -> None:
        self.crew, self.num_workers = crew, num_workers
        self.opening: set[int] = set()
        self.idle: list[int] = []
        self.busy: dict[int, int] = {}  # a worker -> the number of its unit
        self.lost_opening = 0

    def run(self, units: Sequence[Unit[Result]], tell: Tell) -> Iterator[tuple[int, Result]]:
        """The number of each unit and its result, as they are done.

        Raises:
            WorkerError: workers are lost again and again.
            SurgeryError: what a unit raises; of several units, any.
        """
        waiting, losses = deque(range(len(units))), Counter[int]()
        try:
            while waiting or self.busy:
                self.staff(waiting, units, tell)
                worker, news = self.crew.wait()
                match news:
                    case Ready():
                        self.opening.discard(worker)
                        self.idle.append(worker)
                        self.lost_opening = 0
                    case Done(result):
                        number = self.busy.pop(worker)
                        self.idle.append(worker)
                        tell(units[number].size, "")
                        yield number, result
                    case Lost(reason):
                        self.lose(worker, reason, waiting, losses, units)
        finally:  # only of a run that is broken off
            for worker in self.busy:
                self.crew.dismiss(worker)
            self.busy.clear()

    def staff(self, waiting: deque[int], units: Sequence[Unit[Any]], tell: Tell) -> None:
        """Give work to all who are ready, and have as many workers as there is work for."""
        while waiting and self.idle:
            worker, number = self.idle.pop(), waiting.popleft()
            self.busy[worker] = number
            tell(0, units[number].label)
            self.crew.give(worker, units[number])
        wanted = min(self.num_workers, len(waiting) + len(self.busy))
        while len(self.opening) + len(self.idle) + len(self.busy) < wanted:
            self.opening.add(self.crew.hire())

    def lose(
        self, worker: int, reason: str, waiting: deque[int], losses: Counter[int], units: Sequence[Unit[Any]]
    ) -> None:
        """A worker is gone: its unit is done again, before all others."""
        self.crew.dismiss(worker)
        if worker in self.opening:
            self.opening.discard(worker)
            self.lost_opening += 1
            if self.lost_opening == MAX_LOSSES:
                raise WorkerError(
                    f"{MAX_LOSSES} workers were lost while they opened the model ({reason}); "
                    "if memory is short, give fewer --workers"
                )
            return
        number = self.busy.pop(worker)
        waiting.appendleft(number)
        losses[number] += 1
        if losses[number] == MAX_LOSSES:
            raise WorkerError(
                f"{MAX_LOSSES} workers were lost doing the same: {units[number].label} ({reason}); "
                "if memory is short, give a smaller --batch-size or fewer --workers"
            )
