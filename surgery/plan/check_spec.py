"""`surgery.check`: a spec and a model -> the plan, or all that is wrong. No weights are read."""

from pathlib import Path
from typing import Any

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.sources import inspect
from surgery.errors import InputError
from surgery.plan.planned import load_for, plan_points, plan_spec
from surgery.plan.spec_model import model_of_spec
from surgery.plan.windowed import AnyPlan
from surgery.spec.load import Spec


def check(spec: Spec | str | Path, model: Any = None, *, profile: str | Path | None = None) -> AnyPlan:
    """The plan of a spec (a `Spec`, or the path of one) for a model; what is wrong is raised in one go.

    Of a sweep name the point: `painters.yaml#s=3,how=skip`.

    That of a spec with windows (`when`) is a `WindowedPlan`, which holds a `Plan` for each atom.

    `model` is a live transformer or pipeline, an `Anatomy`, or a name as `surgery.inspect` takes it; without it, it is
    the model that the spec names. `profile` overrides the spec's file of means. A sweep has many plans: `check_sweep`
    returns them all.

    Raises:
        SpecError: the spec has faults; all of them, with their places, in `faults`.
        InputError: a file or the model can't be read, no model is named, or the spec is a sweep.
        NotYetError: the spec uses what this version does not run.
    """
    loaded, anatomy = _load(spec, model)
    if loaded.sweep is not None and loaded.named is None:
        raise InputError(f"{loaded.file} is a sweep (vary), which has many plans; use surgery.check_sweep")
    return plan_spec(loaded, anatomy, profile=profile).plan


def check_sweep(spec: Spec | str | Path, model: Any = None, *, profile: str | Path | None = None) -> dict[str, AnyPlan]:
    """The plan of every variant of a sweep by the variant's name, like `painters s=0 how=skip`, in their order.

    A spec that is no sweep is its own only variant. The arguments are those of `surgery.check`.

    Raises:
        SpecError, InputError, NotYetError: as `surgery.check` does; and InputError where there are too many variants.
    """
    loaded, anatomy = _load(spec, model)
    return {point.spec.name: point.plan for point in plan_points(loaded, anatomy, profile=profile)}


def _load(spec: Spec | str | Path, model: Any) -> tuple[Spec, Anatomy]:
    def find_anatomy(found: Spec) -> Anatomy:
        if isinstance(model, Anatomy):
            return model
        return inspect(model_of_spec(found, None) if model is None else model)

    loaded = spec if isinstance(spec, Spec) else load_for(spec, find_anatomy)
    return loaded, find_anatomy(loaded)
