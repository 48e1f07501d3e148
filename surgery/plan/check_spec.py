"""`surgery.check`: a spec and a model -> the plan, or all that is wrong. No weights are read."""

from pathlib import Path
from typing import Any

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.sources import find_source, inspect
from surgery.errors import InputError
from surgery.plan.paired import ModelPlan
from surgery.plan.planned import load_for
from surgery.plan.planned_pair import SecondFinder, plan_model, plan_model_points
from surgery.plan.spec_model import model_of_spec
from surgery.spec.load import Spec
from surgery.spec.selector import SECOND


def check(spec: Spec | str | Path, model: Any = None, *, profile: str | Path | None = None) -> ModelPlan:
    """The plan of a spec (a `Spec`, or the path of one) for a model; what is wrong is raised in one go.

    Of a sweep name the point: `painters.yaml#s=3,how=skip`.

    That of a spec with windows (`when`) is a `WindowedPlan`, which holds a `Plan` for each atom; that of one that edits
    a pipeline's second transformer a `PairedPlan`, which holds a plan for each of the two.

    `model` is a live transformer or pipeline, an `Anatomy`, or a name as `surgery.inspect` takes it; without it, it is
    the model that the spec names. `profile` overrides the spec's file of means. A sweep has many plans: `check_sweep`
    returns them all.

    Raises:
        SpecError: the spec has faults; all of them, with their places, in `faults`.
        InputError: a file or the model can't be read, no model is named, or the spec is a sweep.
        NotYetError: the spec uses what this version does not run.
    """
    loaded, anatomy, find_second = _load(spec, model)
    if loaded.sweep is not None and loaded.named is None:
        raise InputError(f"{loaded.file} is a sweep (vary), which has many plans; use surgery.check_sweep")
    return plan_model(loaded, anatomy, find_second, profile=profile).plan


def check_sweep(
    spec: Spec | str | Path, model: Any = None, *, profile: str | Path | None = None
) -> dict[str, ModelPlan]:
    """The plan of every variant of a sweep by the variant's name, like `painters s=0 how=skip`, in their order.

    A spec that is no sweep is its own only variant. The arguments are those of `surgery.check`.

    Raises:
        SpecError, InputError, NotYetError: as `surgery.check` does; and InputError where there are too many variants.
    """
    loaded, anatomy, find_second = _load(spec, model)
    points = plan_model_points(loaded, anatomy, find_second, profile=profile)
    return {point.spec.name: point.plan for point in points}


def _load(spec: Spec | str | Path, model: Any) -> tuple[Spec, Anatomy, SecondFinder]:
    def find_anatomy(found: Spec) -> Anatomy:
        if isinstance(model, Anatomy):
            return model
        return inspect(model_of_spec(found, None) if model is None else model)

    loaded = spec if isinstance(spec, Spec) else load_for(spec, find_anatomy)

    def find_second() -> Anatomy | None:
        return _find_second(model_of_spec(loaded, None) if model is None else model)

    return loaded, find_anatomy(loaded), find_second


def _find_second(model: Any) -> Anatomy | None:
    """The anatomy of a model's second transformer; None where it has none."""
    if isinstance(model, (str, Path)):
        has_second = find_source(str(model)).has_second
    else:
        has_second = getattr(model, SECOND, None) is not None
    return inspect(model, part=SECOND) if has_second else None
