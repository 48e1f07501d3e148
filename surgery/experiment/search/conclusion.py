"""What a search has measured -> what it found: the front, measured again on the half that it has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surgery.experiment.search.budget import Budget
from surgery.experiment.search.edits import edits_text
from surgery.experiment.search.front import FrontPoint, best_within, front_of, neighbours_of, reasons_of
from surgery.experiment.search.halves import Half
from surgery.experiment.search.measuring import Spent
from surgery.experiment.search.problem import MeasuredSets, Sets
from surgery.experiment.search.request import SearchRequest


@dataclass(frozen=True, eq=False)
class Search:
    """What was found. `front` goes from the model as it is to the cheapest; `chosen` is the best within the budget.

    `spent` is what each half took, as if nothing had been measured before; `num_blocks` runs are one of the model.
    `measured` are all sets with what is left of the unit and their damage while choosing.
    """

    front: tuple[FrontPoint, ...]
    chosen: FrontPoint
    budget: Budget
    full: float
    limit: float
    num_blocks: int
    num_timesteps: int
    halves: tuple[Half, Half]
    spent: Mapping[str, Spent]
    measured: Sequence[tuple[str, float, float]]
    notes: tuple[str, ...]
    request: SearchRequest
    recipe: Mapping[str, Any]

    def model_runs(self, half: Half) -> float | None:
        """What measuring on a half took, in runs of the whole model for each prompt and timestep."""
        runs = self.spent[half.name].runs
        return None if runs is None else runs / (self.num_blocks * self.num_timesteps * len(half))


def conclude(
    measured: MeasuredSets,
    held_out: Half,
    request: SearchRequest,
    recipe: Mapping[str, Any],
    *,
    num_timesteps: int,
) -> Search:
    """Measure the front on the half that was not looked at, and say why each of its sets is what it is."""
    sets, candidates = measured.sets, front_of(measured)
    best = best_within(measured, list(measured.values))
    planned = [sets.planned(candidate) for candidate in candidates]
    damage = measured.measuring.damage(planned, held_out)
    front = tuple(
        FrontPoint(
            candidate,
            edits_text(candidate, sets.num_windows),
            sets.planned(candidate),
            sets.text(candidate),
            sets.amount(candidate),
            sets.is_met(candidate),
            measured.values[candidate],
            unseen,
            reasons_of(measured, candidate),
            neighbours_of(measured, candidate),
        )
        for candidate, unseen in zip(candidates, damage, strict=True)
    )
    chosen = next(point for point in front if point.candidate == best)
    ranked = sorted(measured.values, key=lambda each: (-sets.amount(each), measured.mean(each), sorted(each)))
    return Search(
        front,
        chosen,
        sets.budget,
        sets.full,
        sets.limit,
        sum(stack.num_blocks for stack in sets.anatomy.stacks),
        num_timesteps,
        (measured.half, held_out),
        measured.measuring.spent,
        [(edits_text(each, sets.num_windows), sets.amount(each), measured.mean(each)) for each in ranked],
        tuple(notes_on(sets)),
        request,
        {**recipe, "objective": measured.measuring.objective.recipe()},
    )


def notes_on(sets: Sets) -> list[str]:
    """What a reader of the results should know."""
    if not sets.refused:
        return []
    candidate, why = next(iter(sets.refused.items()))
    what = edits_text(candidate, sets.num_windows)
    return [f"{len(sets.refused)} sets were left out that can't be done, the first of them {what}: {why}"]
