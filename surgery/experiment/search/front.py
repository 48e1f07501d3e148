"""Sets that were measured -> the front: those that no other beats in cost and damage; the best within the budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.errors import InputError
from surgery.experiment.search.edits import UNEDITED, Candidate, Edit, edits_text
from surgery.experiment.search.problem import MeasuredSets
from surgery.metrics.intervals import Interval, mean_interval
from surgery.metrics.welch import independent_difference
from surgery.plan.planned import PlannedSpec

Array = NDArray[np.float64]
NUM_NEIGHBOURS = 3


@dataclass(frozen=True)
class Neighbour:
    """Another set that was measured: what it does, what is left of the budget's unit, its damage while choosing."""

    text: str
    amount: float
    damage: float


@dataclass(frozen=True)
class Reason:
    """Why an edit is in a set: the damage of it `alone`, of the set `without` it, and the best set `instead` that does
    without it and costs no more; None of what was not measured.
    """

    edit: Edit
    alone: float | None
    without: float | None
    instead: Neighbour | None


@dataclass(frozen=True, eq=False)
class FrontPoint:
    """A set of the front. `choosing` and `held_out` are its damage on each prompt of the two halves."""

    candidate: Candidate
    text: str
    planned: PlannedSpec
    spec_text: str
    amount: float
    is_met: bool
    choosing: Array
    held_out: Array
    reasons: tuple[Reason, ...]
    neighbours: tuple[Neighbour, ...]

    @property
    def chosen_interval(self) -> Interval:
        """The damage on the prompts that it was chosen by: too low, the more sets were compared."""
        return mean_interval(self.choosing)

    @property
    def held_out_interval(self) -> Interval:
        """The damage on the prompts that the search has not seen."""
        return mean_interval(self.held_out)

    @property
    def gap(self) -> Interval:
        """Held out less chosen."""
        found = independent_difference(self.held_out_interval, self.chosen_interval)
        value = self.held_out_interval.value - self.chosen_interval.value
        return found or Interval(value, None, None, len(self.held_out), "without an interval")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "edits": self.text,
            "amount": self.amount,
            "is_within_budget": self.is_met,
            "plan": self.planned.plan.hash,
            "chosen": self.chosen_interval.to_json(),
            "held_out": self.held_out_interval.to_json(),
            "gap": self.gap.to_json(),
        }


def front_of(measured: MeasuredSets) -> list[Candidate]:
    """The sets that no other beats: as cheap and better, or cheaper and as good; from the model as it is on."""
    best: list[Candidate] = []
    ranked = sorted(measured.values, key=lambda each: (measured.sets.amount(each), measured.mean(each), sorted(each)))
    for candidate in ranked:
        if not best or measured.mean(candidate) < measured.mean(best[-1]):
            best.append(candidate)
    return [candidate for candidate in reversed(best) if np.isfinite(measured.mean(candidate))]


def best_within(measured: MeasuredSets, candidates: Sequence[Candidate]) -> Candidate:
    """The set of least damage within the budget.

    Raises:
        InputError: none is, or none whose damage is a number.
    """
    met = [each for each in candidates if measured.is_met(each) and np.isfinite(measured.mean(each))]
    if not met:
        raise InputError(
            "no set within the budget gave a damage that is a number, or could be planned"
            + "".join(f"; one could not: {why}" for why in list(measured.sets.refused.values())[:1])
        )
    return min(met, key=lambda each: (measured.mean(each), measured.sets.amount(each), sorted(each)))


def reasons_of(measured: MeasuredSets, candidate: Candidate) -> tuple[Reason, ...]:
    """Why each edit of a set is in it."""
    found = []
    for edit in sorted(candidate):
        alone, without = frozenset({edit}), candidate - {edit}
        others = [each for each in measured.values if edit not in each and _is_as_cheap(measured, each, candidate)]
        instead = min(others, key=lambda each: (measured.mean(each), sorted(each)), default=None)
        found.append(
            Reason(
                edit,
                measured.mean(alone) if alone in measured.values else None,
                measured.mean(without) if without in measured.values else None,
                None if instead is None else neighbour(measured, instead),
            )
        )
    return tuple(found)


def neighbours_of(measured: MeasuredSets, candidate: Candidate) -> tuple[Neighbour, ...]:
    """The next best sets that cost no more."""
    others = [each for each in measured.values if each != candidate and _is_as_cheap(measured, each, candidate)]
    ranked = sorted(others, key=lambda each: (measured.mean(each), sorted(each)))
    return tuple(neighbour(measured, each) for each in ranked[:NUM_NEIGHBOURS])


def neighbour(measured: MeasuredSets, candidate: Candidate) -> Neighbour:
    """What is told of another set."""
    sets = measured.sets
    return Neighbour(edits_text(candidate, sets.num_windows), sets.amount(candidate), measured.mean(candidate))


def _is_as_cheap(measured: MeasuredSets, other: Candidate, candidate: Candidate) -> bool:
    return other != UNEDITED and measured.sets.amount(other) <= measured.sets.amount(candidate)
