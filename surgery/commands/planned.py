"""A spec file -> its plan: where `check`, `diff` and `compile` begin. Models not seen before need torch."""

from dataclasses import dataclass
from pathlib import Path

from surgery.anatomy.parts import Anatomy
from surgery.anatomy.sources import ModelSource, anatomy_of_source, find_source
from surgery.errors import InputError
from surgery.plan.cost import Cost, plan_cost
from surgery.plan.lower import MeanValues, lower_spec
from surgery.plan.plan import Plan
from surgery.spec.load import Spec, load_spec


@dataclass(frozen=True)
class PlannedSpec:
    """A valid spec, the model it is for, and what it does to it. `profile` is the file of means that was given."""

    spec: Spec
    source: ModelSource
    anatomy: Anatomy
    plan: Plan
    cost: Cost
    profile: Path | None = None


def plan_spec_file(path: Path, *, model: str | None = None, profile: Path | None = None) -> PlannedSpec:
    """Plan a spec for the model that it names, or for `model`.

    Raises:
        InputError: a file or the model can't be read, or no model is named.
        SpecError: the spec has faults; all of them, with their places.
        NotYetError: it uses what this version does not run.
        TraceError: the model can't be traced.
    """
    spec = load_spec(path)
    source = find_source(model_of_spec(spec, model))
    anatomy = anatomy_of_source(source)
    plan = lower_spec(spec, anatomy, mean_values(spec, profile))
    return PlannedSpec(spec, source, anatomy, plan, plan_cost(plan, anatomy), profile)


def mean_values(spec: Spec, profile: Path | None) -> MeanValues | None:
    """What the plan needs to know of the file of means; None without one."""
    if spec.profile is None and profile is None:
        return None
    from surgery.profiles.means import means_for_spec

    means = means_for_spec(spec, profile)
    return None if means is None else MeanValues(means.digest, means.widths)


def model_of_spec(spec: Spec, override: str | None) -> str:
    """The model to work on; raises InputError where neither the spec nor the call names one."""
    name = override or spec.model
    if name is None:
        raise InputError(f"{spec.file} names no model; write model: in the spec, or give --model")
    return name
