"""Plans x a half of the prompts -> damage, by an engine: what is in the store is not measured again."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.experiment.bench import Bench
from surgery.experiment.drawing import telling
from surgery.experiment.engines import Engine
from surgery.experiment.search.halves import Half
from surgery.experiment.search.objective import Objective
from surgery.experiment.search.store import Shelf, Store
from surgery.plan.planned import PlannedSpec
from surgery.progress import show_progress

Array = NDArray[np.float64]


@dataclass
class Spent:
    """What measuring on a half took, as if nothing had been in the store: sets, and runs of blocks.

    `runs` is None where nobody counts them.
    """

    sets: int = 0
    runs: float | None = 0.0


@dataclass(eq=False)
class Measuring:
    """Measures plans by an objective on a bench; `recipe` is that of the run and its prompts."""

    objective: Objective
    bench: Bench
    engine: Engine
    store: Store
    recipe: Mapping[str, Any]
    batch_size: int
    spent: dict[str, Spent] = field(default_factory=dict)
    seen: set[tuple[str, int, str]] = field(default_factory=set)
    shelves: dict[tuple[int, range], Shelf] = field(default_factory=dict)
    num_found: Counter[str] = field(default_factory=Counter)

    def damage(self, planned: Sequence[PlannedSpec], half: Half) -> list[Array]:
        """The damage of each plan on each prompt of a half (N,)."""
        parts = [part for part, weight in enumerate(self.objective.weights) if weight]
        wanted = {part: self.rows_in(part, planned) for part in parts}
        self.account(wanted, half)
        self.measure(wanted, half)
        return [self.total(each, half) for each in planned]

    def rows_in(self, part: int, planned: Sequence[PlannedSpec]) -> dict[str, PlannedSpec]:
        """What a part sees of plans, by hash, each once; not the model as it is where its damage is known."""
        found: dict[str, PlannedSpec] = {}
        for each in planned:
            plan = self.objective.within(each.plan, part)
            if not plan.is_identity or self.objective.unedited is None:
                found.setdefault(plan.hash, replace(each, plan=plan))
        return found

    def account(self, wanted: Mapping[int, Mapping[str, PlannedSpec]], half: Half) -> None:
        """Add to what was spent what this search has not asked for before."""
        spent = self.spent.setdefault(half.name, Spent())
        new = set()
        for part, rows in wanted.items():
            unseen = [name for name in rows if (half.name, part, name) not in self.seen]
            self.seen |= {(half.name, part, name) for name in unseen}
            new |= set(unseen)
            for chunk in _chunks(unseen, self.objective.most):
                runs = self.objective.block_runs([rows[name].plan for name in chunk])
                spent.runs = None if runs is None or spent.runs is None else spent.runs + runs * len(half)
        spent.sets += len(new)

    def measure(self, wanted: Mapping[int, Mapping[str, PlannedSpec]], half: Half) -> None:
        """Measure what no shelf has, and write each unit's numbers as soon as it is done."""
        work: list[tuple[int, int, Shelf, Any]] = []
        for part, numbers in itertools.product(wanted, half.batches(self.batch_size)):
            shelf = self.shelf(part, numbers)
            missing = [name for name in wanted[part] if len(shelf.numbers.get(name, ())) != len(numbers)]
            self.num_found[half.name] += len(wanted[part]) - len(missing)
            for place, chunk in enumerate(_chunks(missing, self.objective.most)):
                rows = {name: wanted[part][name] for name in chunk}
                work.append((part, place, shelf, self.objective.unit(rows, part, numbers)))
        work.sort(key=lambda each: each[:2])  # the same plans one after the other: what walks through them is kept
        units = [unit for _, _, _, unit in work]
        if not units:
            return
        total = sum(unit.size for unit in units)
        with show_progress(total, unit="number", label=f"measuring ({half.name})") as meter:
            for number, found in self.engine.run(self.bench, units, telling(meter)):
                work[number][2].add(found)

    def shelf(self, part: int, numbers: range) -> Shelf:
        """The shelf of a part and a batch."""
        if (part, numbers) not in self.shelves:
            recipe = {**self.recipe, **self.objective.recipe(), "part": part, "numbers": [numbers.start, numbers.stop]}
            self.shelves[part, numbers] = self.store.shelf(recipe)
        return self.shelves[part, numbers]

    def total(self, planned: PlannedSpec, half: Half) -> Array:
        """The damage of a plan that was measured: the weighted sum over parts."""
        found = np.zeros(len(half))
        for part, weight in enumerate(self.objective.weights):
            if weight:
                found += weight * self.in_part(planned, part, half)
        return found

    def in_part(self, planned: PlannedSpec, part: int, half: Half) -> Array:
        """The same in one part."""
        plan = self.objective.within(planned.plan, part)
        if plan.is_identity and self.objective.unedited is not None:
            return np.full(len(half), self.objective.unedited)
        batches = [self.shelf(part, numbers).numbers[plan.hash] for numbers in half.batches(self.batch_size)]
        return np.concatenate([np.asarray(batch, dtype=np.float64) for batch in batches])


def _chunks(names: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), most):
        yield names[start : start + most]
