"""A spec -> its plan, with what it reads: the one way there. Models not seen before need torch."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.sources import ModelSource, anatomy_of_source, find_source
from surgery.errors import InputError, NotYetError, SpecError, SurgeryError
from surgery.plan.cost import Cost, Course, plan_cost
from surgery.plan.lower import lower_spec
from surgery.plan.names import find_name_faults
from surgery.plan.point_text import text_of_spec
from surgery.plan.profile_groups import FoundGroup, find_profile_groups
from surgery.plan.replacements import MeanValues
from surgery.plan.spec_model import model_of_spec
from surgery.plan.sweep import expand_sweep, only_point
from surgery.plan.windowed import AnyPlan
from surgery.spec.load import Spec, load_spec
from surgery.spec.parts import edits_second, places_in_second, spec_of_part
from surgery.spec.places import Faults
from surgery.spec.selector import FIRST

if TYPE_CHECKING:
    from surgery.profiles.means import MeansFile


PLACE = re.compile(r".*?:(\d+):(\d+): ")  # with which a fault begins
ONE_TRANSFORMER = "this is done to one transformer, and the spec edits two; leave transformer_2/ and */ out"


@dataclass(frozen=True)
class PlannedSpec:
    """A valid spec, and what it does to a model of this anatomy.

    `means` is its file of means, None without one; `groups` are those that it takes from profiles.
    """

    spec: Spec
    anatomy: Anatomy
    plan: AnyPlan
    means: "MeansFile | None"
    groups: tuple[FoundGroup, ...]

    @cached_property
    def cost(self) -> Cost:
        """What it saves, and what it costs."""
        return plan_cost(self.plan, self.anatomy)

    def cost_on(self, course: Course) -> Cost:
        """The same where a run calls the transformer on this course."""
        return plan_cost(self.plan, self.anatomy, course)

    @property
    def text(self) -> str:
        """The text of the spec, of this point alone, with the layers in place of groups from profiles."""
        return text_of_spec(self.spec, self.groups)


@dataclass(frozen=True)
class PlannedSource(PlannedSpec):
    """The same, with the model that it is for: where its files are."""

    source: ModelSource


def plan_spec(
    spec: Spec, anatomy: Anatomy, *, profile: str | Path | None = None, part: str | None = None
) -> PlannedSpec:
    """Plan a spec for a model of this anatomy, whether it runs or is only known. `profile` overrides its file of means.

    `part` is which of two transformers that is: means of the other are none of its own.

    Raises:
        InputError: the file of means is not usable.
        SpecError: the spec has faults; all of them, with their places; or it is a sweep, and not one point of it.
        NotYetError: it uses what this version does not run.
    """
    spec = only_point(spec, anatomy)
    faults = Faults(spec.file)
    groups = find_profile_groups(spec, anatomy, faults, part)
    means = _means_of(spec, profile)
    if part is None:
        _refuse_means_of_another(means)
    return _plan(spec, anatomy, means, groups, faults, part or FIRST)


def plan_points(spec: Spec, anatomy: Anatomy, *, profile: str | Path | None = None) -> list[PlannedSpec]:
    """Plan every variant of a spec, one where it is no sweep; raises as `plan_spec` does."""
    points = expand_sweep(spec, anatomy)
    means, faults = _means_of(spec, profile), Faults(spec.file)
    _refuse_means_of_another(means)
    groups = find_profile_groups(spec, anatomy, faults)  # all points have them
    return [_plan(point, anatomy, means, groups, faults) for point in points]


def _plan(
    spec: Spec,
    anatomy: Anatomy,
    means: "MeansFile | None",
    groups: tuple[FoundGroup, ...],
    faults: Faults,
    part: str = FIRST,
) -> PlannedSpec:
    values = None if means is None else MeanValues(means.digest, means.widths)
    if means is not None and means.transformer != part:
        values = MeanValues(means.digest, {}, f"{means.path.name} is of {means.transformer}")
        means = None
    return PlannedSpec(spec, anatomy, lower_spec(spec, anatomy, values, groups, faults), means, groups)


def _means_of(spec: Spec, override: str | Path | None) -> "MeansFile | None":
    """The file of means that a spec names (relative to its own folder), or the one given instead; None without one."""
    if override is None and spec.profile is None:
        return None
    from surgery.profiles.means import read_means

    return read_means(spec.folder / str(spec.profile) if override is None else override)


def _refuse_means_of_another(means: "MeansFile | None") -> None:
    if means is not None and means.transformer != FIRST:
        raise InputError(
            f"the means of {means.path} are of {means.transformer}; give a profile of the first transformer"
        )


Finder = Callable[[str], ModelSource]


def merge_faults(error: SpecError, find_anatomy: Callable[[Spec], Anatomy]) -> list[str]:
    """The faults of the language, and with them the names that the model does not have, in the order of their places.

    `find_anatomy` finds the model of a spec, its first transformer where it has two. One that is not at hand is not
    what is wrong here: nothing is said of it.
    """
    if not isinstance(error.partial, Spec):
        return list(error.faults)
    try:
        first = spec_of_part(error.partial, FIRST)
        find_name_faults(first, find_anatomy(error.partial)).raise_if_any()
    except SpecError as more:
        return sorted({*error.faults, *more.faults}, key=place_of)
    except SurgeryError:
        pass
    return list(error.faults)


def place_of(fault: str) -> tuple[int, int]:
    """The line and the column of a message."""
    found = PLACE.match(fault)
    assert found is not None, "a fault begins with its place"
    return int(found[1]), int(found[2])


def plan_spec_file(
    path: Path, *, model: str | None = None, profile: Path | None = None, find: Finder = find_source
) -> PlannedSource:
    """Plan a spec for the one transformer of the model that it names, or of `model`; `find` finds models by name.

    Raises:
        InputError: a file or the model can't be read, or no model is named.
        SpecError: the spec has faults; all of them, with their places.
        NotYetError: it uses what this version does not run.
        TraceError: the model can't be traced.
    """
    spec, source = load_with_model(path, model, find)
    if source.has_second and edits_second(spec):
        places = (f"{spec.file}:{place.line}:{place.column}: " for place in places_in_second(spec))
        raise NotYetError(f"{next(places, f'{spec.file}: ')}not yet: {ONE_TRANSFORMER}")
    return with_source(plan_spec(spec, anatomy_of_source(source), profile=profile), source)


def with_source(planned: PlannedSpec, source: ModelSource) -> PlannedSource:
    """What is planned for the anatomy of a source, with the source."""
    return PlannedSource(planned.spec, planned.anatomy, planned.plan, planned.means, planned.groups, source)


def load_with_model(path: Path, model: str | None, find: Finder) -> tuple[Spec, ModelSource]:
    """A spec, and the model that it is planned for."""
    spec = load_for(path, lambda spec: anatomy_of_source(find(model_of_spec(spec, model))))
    return spec, find(model_of_spec(spec, model))


def load_for(path: str | Path, find_anatomy: Callable[[Spec], Anatomy]) -> Spec:
    """Read a spec for a model; what is wrong with its language comes with the names that the model does not have."""
    try:
        return load_spec(path)
    except SpecError as error:
        raise SpecError(merge_faults(error, find_anatomy)) from None


def find_once() -> Finder:
    """`find_source` that asks for each model once, also for one that is not there: a hub that is away is slow."""
    answers: dict[str, ModelSource | InputError] = {}

    def find(name: str) -> ModelSource:
        if name not in answers:
            try:
                answers[name] = find_source(name)
            except InputError as error:
                answers[name] = error
        answer = answers[name]
        if isinstance(answer, InputError):
            raise answer
        return answer

    return find
