"""A crew in this process: workers that do units in any order, on benches opened from pickled data, and may be lost."""

import os
import pickle
import signal
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from surgery.experiment.dispatch import Dispatcher, Done, Lost, Ready
from surgery.experiment.engines import tell_nobody


@dataclass(frozen=True)
class Square:
    """A unit that needs no bench; it may raise, or kill its process."""

    number: int
    error: Exception | None = None
    kills: bool = False
    size: int = 1

    @property
    def label(self):
        return f"square {self.number}"

    def run(self, bench, tell):
        if self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.error is not None:
            raise self.error
        tell(1, self.label)
        return self.number**2


class NoBench:
    """A bench, and its description, for units that need none."""

    def description(self):
        return self

    def open(self):
        return self


class LossyCrew:
    """Each worker has what `open_bench()` gives; one is lost as often as `loses(label)` is still true of its unit."""

    def __init__(self, random, open_bench, loses=lambda label: False, loses_opening=lambda: False):
        self.random, self.open_bench, self.loses, self.loses_opening = random, open_bench, loses, loses_opening
        self.numbers = count()
        self.benches, self.opening, self.given = {}, [], {}
        self.most = 0

    def hire(self):
        number = next(self.numbers)
        self.opening.append(number)
        self.most = max(self.most, len(self.opening) + len(self.benches))
        return number

    def give(self, worker, unit):
        assert worker in self.benches and worker not in self.given
        self.given[worker] = pickle.dumps(unit)

    def wait(self):
        worker = self.random.choice([*self.opening, *self.given])
        if worker in self.opening:
            self.opening.remove(worker)
            if self.loses_opening():
                return worker, Lost("it was killed")
            self.benches[worker] = self.open_bench()
            return worker, Ready()
        unit = pickle.loads(self.given.pop(worker))
        if self.loses(unit.label):
            return worker, Lost("it was killed")
        return worker, Done(pickle.loads(pickle.dumps(unit.run(self.benches[worker], tell_nobody))))

    def dismiss(self, worker):
        self.benches.pop(worker, None)
        self.given.pop(worker, None)


class LossyEngine:
    """An engine of such a crew; units whose labels begin so are lost twice with their workers."""

    def __init__(self, random, num_workers, *beginnings):
        self.random, self.num_workers, self.beginnings = random, num_workers, beginnings
        self.dispatcher, self.lost, self.order = None, Counter(), []

    def loses(self, label):
        if not label.startswith(self.beginnings):
            return False
        self.lost[label] += 1
        return self.lost[label] <= 2

    def run(self, bench, units, tell):
        if self.dispatcher is None:
            data = pickle.dumps(bench.description())
            crew = LossyCrew(self.random, lambda: pickle.loads(data).open(), self.loses)
            self.dispatcher = Dispatcher(crew, self.num_workers)
        for number, result in self.dispatcher.run(units, tell):
            self.order.append(number)
            yield number, result

    @contextmanager
    def opened(self, choice, device):
        """In place of `open_engine`."""
        yield self
