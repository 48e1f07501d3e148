"""A search as a problem: which sets there are, what they leave out, and the damage that was measured of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from surgery.anatomy.anatomy import Anatomy
from surgery.errors import InputError, NotYetError, RefusedError, SpecError, TraceError
from surgery.experiment.search.budget import UNIT_TEXTS, Budget, Gauge, amount_text
from surgery.experiment.search.edits import UNEDITED, Candidate, Edit, operations_of, with_edit
from surgery.experiment.search.halves import Half
from surgery.experiment.search.measuring import Measuring
from surgery.plan.planned import PlannedSpec, plan_spec
from surgery.profiles.suggested_spec import as_yaml
from surgery.spec.load import read_spec

Array = NDArray[np.float64]


@dataclass(eq=False)
class Sets:
    """Sets of edits of a model, planned: what each leaves of the budget's unit. No pipeline is needed.

    `refuse` raises where the model can't be run under a plan. What a set lacks that can't be planned is in `refused`.
    """

    model: str
    anatomy: Anatomy
    edits: Sequence[Edit]
    num_windows: int
    budget: Budget
    gauge: Gauge
    refuse: Callable[[PlannedSpec], object]
    known: dict[Candidate, tuple[PlannedSpec, float] | None] = field(default_factory=dict)
    refused: dict[Candidate, str] = field(default_factory=dict)

    @cached_property
    def full(self) -> float:
        """What the model has of the budget's unit."""
        return self.gauge.full

    @cached_property
    def limit(self) -> float:
        """What a variant may have."""
        return self.budget.limit(self.full)

    def text(self, candidate: Candidate) -> str:
        """The spec of a set."""
        operations = "".join(operations_of(candidate, self.anatomy, self.num_windows))
        return f"surgery: v1\nmodel: {as_yaml(self.model)}\noperations:{' []' if not operations else ''}\n{operations}"

    def find(self, candidate: Candidate) -> tuple[PlannedSpec, float] | None:
        """A set planned, and its amount; None where it can't be."""
        if candidate not in self.known:
            try:
                planned = plan_spec(read_spec(self.text(candidate)), self.anatomy)
                self.refuse(planned)
                self.known[candidate] = planned, self.gauge.amount(planned.plan)
            except (SpecError, RefusedError, NotYetError, TraceError) as error:
                self.known[candidate] = None
                self.refused[candidate] = str(error)
        return self.known[candidate]

    def planned(self, candidate: Candidate) -> PlannedSpec:
        """A set that can be planned, planned."""
        found = self.find(candidate)
        assert found is not None, "sets are grown from those that can be planned"
        return found[0]

    def amount(self, candidate: Candidate) -> float:
        """What a set that can be planned has of the budget's unit."""
        found = self.find(candidate)
        assert found is not None, "sets are grown from those that can be planned"
        return found[1]

    def saved(self, candidate: Candidate) -> float:
        """How much less than the model."""
        return self.full - self.amount(candidate)

    def is_met(self, candidate: Candidate) -> bool:
        """Whether it is within the budget, but for what sums of floats round."""
        return self.amount(candidate) <= self.limit + 1e-9 * self.full

    @cached_property
    def useful(self) -> tuple[Edit, ...]:
        """The edits that can be done, and save something of the budget's unit."""
        alone = [(edit, self.find(frozenset({edit}))) for edit in self.edits]
        return tuple(edit for edit, found in alone if found is not None and found[1] < self.full)

    def add(self, candidate: Candidate, edit: Edit) -> Candidate | None:
        """The set with one edit more; None where that can't be planned, or saves nothing."""
        grown = with_edit(candidate, edit)
        if grown is None or self.find(grown) is None or self.amount(grown) >= self.amount(candidate):
            return None
        return grown

    def add_alone(self, candidate: Candidate, edit: Edit) -> Candidate | None:
        """The same; None too where an edit of the set would be idle beside it."""
        grown = self.add(candidate, edit)
        return grown if grown is not None and len(grown) == len(candidate) + 1 else None

    def grow(self, candidate: Candidate) -> list[Candidate]:
        """The sets with one edit more."""
        found = (self.add(candidate, edit) for edit in self.useful)
        return [grown for grown in found if grown is not None]

    def refuse_unmet(self) -> None:
        """Raise InputError where nothing that may be chosen meets the budget, with the nearest that does."""
        unit = UNIT_TEXTS[self.budget.kind]
        limit = self.limit
        if not self.useful:
            raise InputError(f"nothing that may be chosen saves {unit}: {self.why_useless}")
        least = UNEDITED
        for edit in self.useful:
            least = self.add(least, edit) or least
        if not self.is_met(least):
            nearest = self.amount(least)
            share = f" ({100 * nearest / self.full:.4g}% of {amount_text(self.full)})"
            raise InputError(
                f"the budget {self.budget.text} ({amount_text(limit)} {unit}) can't be met: with all that may be "
                f"chosen left out, {amount_text(nearest)} are left{share}; write {self.budget.kind}={nearest:.15g}, or "
                "forbid less"
            )

    @property
    def why_useless(self) -> str:
        """What would save something of the budget's unit."""
        if not self.edits:
            return "everything is forbidden, or can't be edited"
        if len(self.refused) >= len(self.edits):
            return next(iter(self.refused.values()))
        if self.budget.kind in ("blocks", "parameters") and self.num_windows > 1:
            return "what is left out in some windows only stays there; give a budget of executions, flops or latency"
        if self.budget.kind in ("blocks", "executions"):
            return "no whole block may be chosen; give --units blocks or both, or a budget of parameters or flops"
        return "the edits leave out nothing that counts"


@dataclass(eq=False)
class MeasuredSets:
    """The same sets with the damage of those that were measured: what a method asks; `on_level` is told each time."""

    sets: Sets
    measuring: Measuring
    half: Half
    on_level: Callable[["MeasuredSets"], object]
    values: dict[Candidate, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.measure([UNEDITED])
        if not np.isfinite(self.mean(UNEDITED)):
            name = self.measuring.objective.name
            raise InputError(
                f"{name} of the model as it is is no finite number, so that nothing can be compared with it"
            )

    def measure(self, candidates: Sequence[Candidate]) -> Mapping[Candidate, float]:
        """The damage of sets beyond that of the model as it is; what is no number is infinite."""
        new = [candidate for candidate in dict.fromkeys(candidates) if candidate not in self.values]
        planned = [self.sets.planned(candidate) for candidate in new]
        self.values.update(zip(new, self.measuring.damage(planned, self.half), strict=True))
        self.on_level(self)
        return {candidate: self.mean(candidate) - self.mean(UNEDITED) for candidate in candidates}

    def mean(self, candidate: Candidate) -> float:
        """The damage of a set, the mean over prompts."""
        found = float(self.values[candidate].mean())
        return float("inf") if np.isnan(found) else found

    def grow(self, candidate: Candidate) -> list[Candidate]:
        """Those of the sets."""
        return self.sets.grow(candidate)

    def saved(self, candidate: Candidate) -> float:
        """That of the sets."""
        return self.sets.saved(candidate)

    def is_met(self, candidate: Candidate) -> bool:
        """That of the sets."""
        return self.sets.is_met(candidate)
