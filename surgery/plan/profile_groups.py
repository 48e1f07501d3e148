"""Groups that a spec takes from profiles -> the layers that they are. The profiles are read here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from surgery.anatomy.anatomy import Anatomy
from surgery.errors import InputError
from surgery.spec import operations as ops
from surgery.spec.load import Spec
from surgery.spec.parts import selection_of
from surgery.spec.places import Faults
from surgery.spec.profile_group import ProfileGroup
from surgery.spec.selector import FIRST, Range, Selector, indices_to_text

if TYPE_CHECKING:
    from surgery.profiles.layer_profile import Profile


@dataclass(frozen=True)
class FoundGroup:
    """A group and the layers start to stop - 1 that it is."""

    group: ProfileGroup
    start: int
    stop: int

    @property
    def selector(self) -> str:
        """The layers as a spec writes them."""
        return f"{self.group.stack}[{indices_to_text(range(self.start, self.stop))}]"


def find_profile_groups(
    spec: Spec, anatomy: Anatomy, faults: Faults, part: str | None = None
) -> tuple[FoundGroup, ...]:
    """The groups of a spec that profiles define, but for those with faults: no such file, stack or group, or a profile
    of another model.

    `part` is which of two transformers the spec is for: groups that it does not use may be of the other.
    """
    used = {selector.group for operation in spec.operations for selector in selection_of(operation)}
    profiles: dict[Path, Profile | str] = {}
    found = []
    for group in spec.profile_groups:
        path = spec.folder / group.file
        if path not in profiles:
            profiles[path] = _read(path)
        profile = profiles[path]
        try:
            if isinstance(profile, str):
                raise InputError(profile)
            if part is not None and profile.transformer != part and group.reference not in used:
                continue
            found.append(_find(group, profile, anatomy, part or FIRST))
        except InputError as error:
            faults.add(group.place, str(error))
    return tuple(found)


def _read(path: Path) -> "Profile | str":
    from surgery.profiles.profile_file import read_profile

    try:
        return read_profile(path)
    except InputError as error:
        return str(error)


def _find(group: ProfileGroup, profile: "Profile", anatomy: Anatomy, part: str) -> FoundGroup:
    from surgery.profiles.groups import find_groups
    from surgery.profiles.parts import only_part

    looked_at = profile if group.part is None else only_part(profile, group.part)
    groups = find_groups(looked_at, group.stack, stream=group.stream, num_groups=group.num_groups)
    run = groups.find(group.group)
    refuse_other_model(profile, anatomy, group.stack, part=part)
    return FoundGroup(group, run.start, run.stop)


def refuse_other_model(profile: "Profile", anatomy: Anatomy, stack: str | None = None, *, part: str = FIRST) -> None:
    """Raise InputError where a profile shows that it is of another model, or of another transformer of its pipeline
    than `part`; looks at one stack or at all."""
    from surgery.profiles.mismatch import find_mismatch

    if profile.transformer != part:
        raise InputError(f"the profile is of {profile.transformer}, and this is {part}; measure a profile of that one")
    lengths = {item.name: item.num_blocks for item in anatomy.stacks}
    mismatch = find_mismatch(profile, anatomy.class_name, lengths, stack)
    if mismatch is not None:
        raise InputError(f"{mismatch}; measure a profile of this model")


def with_groups(operation: ops.AnyOperation, found: tuple[FoundGroup, ...], faults: Faults) -> ops.AnyOperation | None:
    """An operation with the layers in place of the groups; None where it selects none but groups with faults."""
    match operation:
        case ops.Order():
            return operation
        case ops.Replace():
            components = _selection(operation.components, found, faults)
            return replace(operation, components=components) if components else None
        case ops.OnLayers():
            layers = _selection(operation.layers, found, faults)
            return replace(operation, layers=layers) if layers else None
        case _:
            assert_never(operation)


def _selection(selection: ops.Selection, found: tuple[FoundGroup, ...], faults: Faults) -> ops.Selection:
    by_reference = {item.group.reference: item for item in found}
    kept: list[Selector] = []
    for selector in selection:
        if selector.group is None:
            kept.append(selector)
        elif selector.group in by_reference:
            item = by_reference[selector.group]
            part = Range(item.start, item.stop, None, selector.place)
            kept.append(replace(selector, text=item.selector, parts=(part,), group=None))
        else:
            faults.meet_again()
    return tuple(kept)


def self_contained_text(spec: Spec, found: tuple[FoundGroup, ...]) -> str:
    """The text of a spec with the layers in place of the groups from profiles, which stand behind as comments."""
    lines = spec.text.split("\n")
    for item in found:
        place, reference = item.group.place, item.group.reference
        line = lines[place.line - 1]
        before, rest = line[: place.column - 1], line[place.column - 1 :]
        forms = (f'"{reference}"', f"'{reference}'", reference)
        written = next((form for form in forms if rest.startswith(form)), None)
        if written is None:
            continue  # written with escapes: it stays as it is
        after = rest[len(written) :]
        source = Path(item.group.file).name + reference[len(item.group.file) :]
        comment = "" if after.strip() else f"  # from {source}"
        lines[place.line - 1] = f'{before}"{item.selector}"{after.rstrip()}{comment}'
    return "\n".join(lines)
