"""A spec and the transformers of a model -> what is planned of it: for the one, or for a pair where both are edited."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.resolve import resolve_components, resolve_layers
from surgery.anatomy.sources import ModelSource, anatomy_of_source, find_source, second_source
from surgery.errors import NotYetError, SpecError
from surgery.plan.cost import Course
from surgery.plan.paired import PairedPlan
from surgery.plan.planned import (
    PLACE,
    Finder,
    PlannedSource,
    PlannedSpec,
    load_with_model,
    place_of,
    plan_points,
    plan_spec,
    with_source,
)
from surgery.plan.point_text import text_of_spec
from surgery.plan.sweep import expand_sweep, only_point
from surgery.spec import operations as ops
from surgery.spec.load import Spec
from surgery.spec.parts import edits_second, operation_of_part, selection_of, spec_of_part
from surgery.spec.places import Faults, Place
from surgery.spec.selector import FIRST, MODELS, SECOND

SecondFinder = Callable[[], Anatomy | None]  # the anatomy of the second transformer, None of a model that has one


@dataclass(frozen=True)
class PlannedPair:
    """A valid spec that edits a second transformer, and what it does to each of the two."""

    spec: Spec
    first: PlannedSpec
    second: PlannedSpec

    @property
    def by_part(self) -> Mapping[str, PlannedSpec]:
        """What is planned for each transformer, by its name in the pipeline."""
        return {FIRST: self.first, SECOND: self.second}

    @cached_property
    def plan(self) -> PairedPlan:
        """The plans of both."""
        return PairedPlan(self.first.plan, self.second.plan)

    @property
    def text(self) -> str:
        """The text of the spec, with the layers in place of groups from profiles."""
        return text_of_spec(self.spec, self.first.groups + self.second.groups)


AnyPlanned = PlannedSpec | PlannedPair


@dataclass(frozen=True)
class PlannedPairSource(PlannedPair):
    """The same, with the sources of both."""

    first: PlannedSource
    second: PlannedSource

    @property
    def sources(self) -> Mapping[str, PlannedSource]:
        """What is planned for each transformer, by its name in the pipeline."""
        return {FIRST: self.first, SECOND: self.second}

    @property
    def source(self) -> ModelSource:
        """The model, as its first transformer."""
        return self.first.source

    def courses(self, course: Course) -> Mapping[str, Course]:
        """Which part of a course each of the two runs; all of it where the pipeline does not say."""
        boundary = self.source.boundary
        above, below = (course, course) if boundary is None else course.cut(boundary)
        return {FIRST: above, SECOND: below}


AnyPlannedSource = PlannedSource | PlannedPairSource


def as_pair(planned: AnyPlannedSource) -> PlannedPairSource:
    """What is planned for a model with two transformers, of which the second may be left as it is."""
    if isinstance(planned, PlannedPairSource):
        return planned
    source = second_source(planned.source)
    assert source is not None, "the model has two"
    second = plan_spec(spec_of_part(planned.spec, SECOND), anatomy_of_source(source), part=SECOND)
    return PlannedPairSource(planned.spec, planned, with_source(second, source))


def parts_of(planned: AnyPlannedSource) -> tuple[PlannedSource, ...]:
    """What is planned for the one transformer, or for each of the two."""
    return (planned.first, planned.second) if isinstance(planned, PlannedPairSource) else (planned,)


def plan_model(
    spec: Spec, first: Anatomy, find_second: SecondFinder, *, profile: str | Path | None = None
) -> AnyPlanned:
    """Plan a spec for a model whose second transformer is looked for where an operation is for it.

    Raises:
        InputError: the file of means is not usable.
        SpecError: the spec has faults; all of them, of both transformers, with their places.
        NotYetError: it uses what this version does not run.
    """
    spec = only_point(spec, first)
    second = find_second() if edits_second(spec) else None
    if second is None:
        return plan_spec(spec, first, profile=profile)
    _refuse_not_yet(spec)
    faults = {part: frozenset[str]() for part in MODELS}
    planned: list[PlannedSpec] = []
    for part, anatomy in ((FIRST, first), (SECOND, second)):
        of_part = spec_of_part(_without_totals(spec), part)
        try:
            planned.append(plan_spec(of_part, anatomy, profile=profile, part=part))
        except SpecError as error:
            faults[part] = frozenset(error.faults)
    found = [*_total_faults(spec, first, second), *_join_faults(faults)]
    if found:
        raise SpecError(sorted(found, key=place_of))
    return PlannedPair(spec, planned[0], planned[1])


def _join_faults(faults: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """The faults of both, each once; of those that one alone has, it is said which."""
    shared = frozenset.intersection(*faults.values())
    yield from shared
    for part, found in faults.items():
        for fault in found - shared:
            place = PLACE.match(fault)
            assert place is not None, "a fault begins with its place"
            yield f"{place[0]}in {part}: {fault[place.end() :]}"


def plan_model_points(
    spec: Spec, first: Anatomy, find_second: SecondFinder, *, profile: str | Path | None = None
) -> list[AnyPlanned]:
    """Plan every variant of a spec, one where it is no sweep; raises as `plan_model` does."""
    points = expand_sweep(spec, first)
    if not any(edits_second(point) for point in points):
        return [*plan_points(spec, first, profile=profile)]
    return [plan_model(point, first, find_second, profile=profile) for point in points]


def plan_model_file(
    path: Path, *, model: str | None = None, profile: Path | None = None, find: Finder = find_source
) -> AnyPlannedSource:
    """Plan a spec for the model that it names, or for `model`; `find` finds models by name.

    Raises:
        InputError: a file or the model can't be read, or no model is named.
        SpecError: the spec has faults; all of them, with their places.
        NotYetError: it uses what this version does not run.
        TraceError: the model can't be traced.
    """
    spec, source = load_with_model(path, model, find)
    find_second = _second_of(source)
    return _with_sources(plan_model(spec, anatomy_of_source(source), find_second, profile=profile), source)


def plan_model_sweep_file(
    path: Path, *, model: str | None = None, profile: Path | None = None, find: Finder = find_source
) -> list[AnyPlannedSource]:
    """Plan every variant of a spec, one where it is no sweep; raises as `plan_model_file` does."""
    spec, source = load_with_model(path, model, find)
    points = plan_model_points(spec, anatomy_of_source(source), _second_of(source), profile=profile)
    return [_with_sources(point, source) for point in points]


def _second_of(source: ModelSource) -> SecondFinder:
    def find() -> Anatomy | None:
        second = second_source(source)
        return None if second is None else anatomy_of_source(second)

    return find


def _with_sources(planned: AnyPlanned, source: ModelSource) -> AnyPlannedSource:
    if isinstance(planned, PlannedSpec):
        return with_source(planned, source)
    second = second_source(source)
    assert second is not None, "a pair is of a model that has two"
    return PlannedPairSource(planned.spec, with_source(planned.first, source), with_source(planned.second, second))


def _refuse_not_yet(spec: Spec) -> None:
    """Raise NotYetError for a number of layers in both transformers, of which a profile knows one alone."""
    lines: list[tuple[Place, str]] = []
    for operation in filter(_is_split, spec.operations):
        if any(selector.group is not None for selector in selection_of(operation)):
            fact = "expect over both transformers counts no profile's group; write one operation for each"
            lines.append((operation.place, fact))
    if lines:
        texts = [f"{spec.file}:{place.line}:{place.column}: not yet: {text}" for place, text in sorted(lines)]
        raise NotYetError("\n".join(dict.fromkeys(texts)))


def _is_split(operation: ops.AnyOperation) -> bool:
    """Whether an operation states how many layers it matches in both transformers together."""
    is_in_both = all(operation_of_part(operation, part) is not None for part in (FIRST, SECOND))
    return operation.expect is not None and is_in_both and not isinstance(operation, ops.Order)


def _without_totals(spec: Spec) -> Spec:
    """The spec without what its operations state of both transformers together."""
    kept = (replace(item, expect=None) if _is_split(item) else item for item in spec.operations)
    return replace(spec, operations=tuple(kept))


def _total_faults(spec: Spec, first: Anatomy, second: Anatomy) -> tuple[str, ...]:
    """Of operations on both transformers, where `expect` is not what they match in the two together."""
    faults = Faults(spec.file)
    for operation in filter(_is_split, spec.operations):
        quiet = Faults(spec.file)
        parts = ((FIRST, first), (SECOND, second))
        total = sum(_count(operation_of_part(operation, part), anatomy, quiet) for part, anatomy in parts)
        if not quiet.found and total != operation.expect:
            what = "component" if isinstance(operation, ops.Replace) else "layer"
            fact = f"expect says {operation.expect}, but the operation matches {total} {what}s in both transformers"
            faults.add(operation.place, f"{fact}; correct one of the two")
    return faults.texts


def _count(operation: ops.AnyOperation | None, anatomy: Anatomy, quiet: Faults) -> int:
    match operation:
        case ops.Replace():
            return len(resolve_components(operation.components, anatomy, quiet))
        case ops.OnLayers():
            return sum(len(layers.indices) for layers in resolve_layers(operation.layers, anatomy, quiet))
        case _:
            return 0
