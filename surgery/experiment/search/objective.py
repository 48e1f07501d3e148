"""What a search makes small: an objective turns plans and prompts into units of work, and these into numbers.

An objective looks at a plan in parts, each with a weight: the denoising error in each timestep bin, what is drawn as a
whole. What two plans do alike in a part is measured once. Its numbers are damage: less is better, one a prompt.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from surgery.errors import InputError
from surgery.experiment.bench import Bench
from surgery.experiment.denoising_error import ErrorUnit
from surgery.experiment.engines import Tell, Unit
from surgery.experiment.search.store import Numbers
from surgery.pipelines.guidance import CONDITIONAL
from surgery.pipelines.shared_text import text_encoded_once
from surgery.plan.plan import Plan
from surgery.plan.planned import PlannedSpec
from surgery.plan.prefix_tree import count_runs, prefix_tree
from surgery.plan.windowed import AnyPlan, WindowedPlan
from surgery.spec.load import Spec

Found = Mapping[str, Numbers]  # by plan, one number a prompt
Damage = Callable[[Spec, Sequence[str]], Sequence[float]]


class Objective(Protocol):
    """What is made small."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def weights(self) -> Sequence[float]:
        """Of its parts; their sum is 1."""

    @property
    def most(self) -> int:
        """How many plans one unit measures."""

    @property
    def unedited(self) -> float | None:
        """The damage of the model as it is; None where that is measured."""

    def within(self, plan: AnyPlan, part: int) -> AnyPlan:
        """What a part sees of a plan."""

    def unit(self, rows: Mapping[str, PlannedSpec], part: int, numbers: range) -> Unit[Found]:
        """The work of measuring these plans in a part, on the prompts of these numbers."""

    def block_runs(self, plans: Sequence[AnyPlan]) -> float | None:
        """The runs of blocks in measuring these together in one part on one prompt; None where nobody counts them."""

    def recipe(self) -> dict[str, Any]:
        """What its numbers depend on beside the run, the plan, the part and the prompts."""


@dataclass(frozen=True, eq=False)
class WalkUnit:
    """Denoising errors of plans, by their hashes, in one bin on one batch: one walk through their prefix tree."""

    errors: ErrorUnit
    rows: Mapping[str, PlannedSpec]

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{len(self.rows)} sets, {self.errors.label}"

    @property
    def size(self) -> int:
        """How many predictions it makes."""
        return self.errors.size

    def run(self, bench: Bench, tell: Tell) -> Found:
        """Its errors."""
        with text_encoded_once([bench.run.pipe], bench.run.texts):
            predictors = bench.predictors_of(self.rows)
            found = self.errors.measure(predictors, bench.run.call, lambda number, _: tell(number, self.label))
        return {name: errors.to_baseline[:, 0].tolist() for name, errors in found.items()}


@dataclass(frozen=True, eq=False)
class DenoisingObjective:
    """The denoising error in the middle of each bin, on the baseline's own latents (N, ...); bins are weighted."""

    clean: torch.Tensor
    prompts: Sequence[str]
    seed: int
    weights: Sequence[float]

    name = "denoising-error"
    most = 256
    unedited = 0.0

    def within(self, plan: AnyPlan, part: int) -> Plan:
        """The plan in the middle of a bin."""
        return plan.plan_at(self.share(part), 0, CONDITIONAL) if isinstance(plan, WindowedPlan) else plan

    def share(self, part: int) -> float:
        """The middle of a bin."""
        return (part + 0.5) / len(self.weights)

    def unit(self, rows: Mapping[str, PlannedSpec], part: int, numbers: range) -> WalkUnit:
        """One walk."""
        own = slice(numbers.start, numbers.stop)
        errors = ErrorUnit(
            part,
            self.share(part),
            0,
            numbers.start,
            self.clean[own].clone(),  # a view would be sent with all of it
            [self.seed + number for number in numbers],
            self.prompts[own],
            dict.fromkeys(rows, (CONDITIONAL,)),
            has_truth=False,
        )
        return WalkUnit(errors, rows)

    def block_runs(self, plans: Sequence[AnyPlan]) -> float:
        """Those of the walk, and of the baseline's own forward before it."""
        whole = [plan for plan in plans if isinstance(plan, Plan)]
        baseline = sum(schedule.num_blocks for schedule in whole[0].schedules)
        return float(prefix_tree(whole).num_runs + baseline)

    def recipe(self) -> dict[str, Any]:
        """The bins; what is noised is drawn by the run."""
        return {"objective": self.name, "bins": len(self.weights)}


@dataclass(frozen=True)
class CallUnit:
    """The numbers that a function gives of one plan."""

    objective: "HandedIn"
    row: str
    planned: PlannedSpec
    prompts: Sequence[str]

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.objective.name} of one set"

    @property
    def size(self) -> int:
        """One a prompt."""
        return len(self.prompts)

    def run(self, bench: Bench, tell: Tell) -> Found:  # noqa: ARG002  (the function has a bench of its own)
        """Call it.

        Raises:
            InputError: it gives no number a prompt.
        """
        found = self.objective.function(self.planned.spec, self.prompts)
        try:
            numbers = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.empty(0)
        if numbers.shape != (len(self.prompts),):
            raise InputError(
                f"the objective {self.objective.name} was given {len(self.prompts)} prompts, and did not return as "
                "many numbers: one a prompt, less is better"
            )
        tell(self.size, "")
        return {self.row: numbers.tolist()}


@dataclass(frozen=True)
class HandedIn:
    """A function of a spec and prompts that gives a number a prompt, less is better; `name` stands for it in the store.

    Nothing of it is known here: it may heal what the spec leaves, and measure that.
    """

    name: str
    function: Damage
    prompts: Sequence[str]

    weights = (1.0,)
    most = 1
    unedited = None

    def within(self, plan: AnyPlan, part: int) -> AnyPlan:  # noqa: ARG002  (as its siblings)
        """All of it."""
        return plan

    def unit(self, rows: Mapping[str, PlannedSpec], part: int, numbers: range) -> CallUnit:  # noqa: ARG002
        """One call."""
        ((name, planned),) = rows.items()
        return CallUnit(self, name, planned, self.prompts[numbers.start : numbers.stop])

    def block_runs(self, plans: Sequence[AnyPlan]) -> None:
        """Nobody knows what a function does."""

    def recipe(self) -> dict[str, Any]:
        """Its name."""
        return {"objective": self.name}


def read_weights(text: str | None, bins: int) -> tuple[float, ...]:
    """The weights of `--weights`, a number a bin from clean to noise, with a sum of 1; equal ones without a text.

    Raises:
        InputError: they are not so many numbers, or none is positive.
    """
    if text is None:
        return (1 / bins,) * bins
    how = f"write {bins} numbers, one for each timestep bin from clean to noise, like {','.join(['1'] * bins)}"
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f'the weights "{text}" are not all numbers; {how}') from None
    if len(found) != bins:
        raise InputError(f"there are {len(found)} weights and {bins} bins; {how}")
    if not all(0 <= weight < float("inf") for weight in found) or not sum(found):
        raise InputError(f'the weights "{text}" are not all 0 or more with one above it; {how}')
    return tuple(weight / sum(found) for weight in found)


def runs_alone(plans: Sequence[AnyPlan]) -> float:
    """The runs of blocks in one forward of each plan, one after the other; of windows, the mean over the range."""
    total = 0.0
    for plan in plans:
        if isinstance(plan, WindowedPlan):
            total += sum((atom.timesteps[1] - atom.timesteps[0]) * count_runs([within]) for atom, within in plan.atoms)
        else:
            total += count_runs([plan])
    return total
