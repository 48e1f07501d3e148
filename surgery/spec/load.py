"""YAML text -> Spec. All faults of a file in one go."""

import functools
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from surgery.errors import InputError
from surgery.spec.beside_vary import Cumulative, read_average, read_cumulative
from surgery.spec.document import Entries, Items, Scalar, Value, read_document
from surgery.spec.fields import check_keys, describe, read_text
from surgery.spec.file_kind import SAFETENSORS, kind_of_content
from surgery.spec.grammar import KEYS, VERSION
from surgery.spec.limits import MAX_BYTES, MAX_PARTS, MAX_SWEPT_OPERATIONS
from surgery.spec.nearest import shorten
from surgery.spec.operations import AnyOperation
from surgery.spec.places import Faults, Place
from surgery.spec.profile_group import SIGN, ProfileGroup, read_profile_group
from surgery.spec.read_operations import OperationReader
from surgery.spec.selector import Groups, Selector, count_parts, read_selector
from surgery.spec.spec_name import (
    STANDARD_INPUT,
    STDIN_FILE,
    STDIN_NAME,
    Pairs,
    name_of_point,
    parse_spec_name,
    read_point,
)
from surgery.spec.vary import Binding, Sweep, Variable, read_variables, samples, substitute

GROUP_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Spec:
    """A spec that is valid as far as the language goes; only a model tells the rest.

    `file` is the name for messages; `folder` what paths within the spec are relative to. A spec with a `sweep` stands
    for several; each of them has a `point`: the values of its variables (a case by its name), and the operations as
    they are `written` with these. `named` is the point that the spec's name asked for, None where it was the whole.
    """

    file: str
    folder: Path
    text: str
    operations: tuple[AnyOperation, ...]
    model: str | None = None
    title: str | None = None
    profile: str | None = None
    group_names: tuple[tuple[str, Place], ...] = ()
    profile_groups: tuple[ProfileGroup, ...] = ()
    sweep: Sweep | None = None
    cumulative: Cumulative | None = None
    average: tuple[str, ...] = ()
    point: tuple[tuple[str, Binding], ...] = ()
    written: Items | None = None
    named: Pairs | None = None

    @property
    def name(self) -> str:
        """The name of the file without its ending, and for a point of a sweep the values of its variables."""
        return " ".join(filter(None, (self.stem, self.point_text)))

    @property
    def point_text(self) -> str:
        """The values of its variables, like `s=3 how=skip`."""
        return " ".join(f"{name}={value}" for name, value in self.point)

    @property
    def path(self) -> str:
        """The file, as a command is given it."""
        return STANDARD_INPUT if self.file == STDIN_NAME else self.file

    @property
    def address(self) -> str:
        """The file, and of a point of a sweep what names it: `painters.yaml#s=3,how=skip`."""
        return name_of_point(self.file, self.point) if self.point else self.file

    @property
    def stem(self) -> str:
        """The name of the file without its ending, as a part of other files' names."""
        return "stdin" if self.file == STDIN_NAME else Path(self.file).stem

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Those of a sweep."""
        return () if self.sweep is None else self.sweep.variables


def load_spec(path: str | Path) -> Spec:
    """Read a spec from a file, or from standard input where the path is `-`; files in it are then relative to here.

    Behind the path may stand a point of a sweep: `painters.yaml#s=3,how=skip`.

    Raises:
        InputError: the file can't be read, or is of another kind, or there is no such point.
        SpecError: the spec has faults; all of them, with their places.
    """
    name = parse_spec_name(path)
    spec = _load_file(name.path, name.file)
    return spec if name.point is None else replace(spec, named=read_point(name, spec.variables))


def _load_file(path: str, file: str) -> Spec:
    try:
        content = _read_beginning(path)
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror or error}") from None
    kind = kind_of_content(content, Path(path).suffix)
    if kind is not None:
        advice = "; a profile is given by --profile, or by profile: in a spec" if kind == SAFETENSORS else ""
        raise InputError(f"{file} is {kind}, and no spec, which is YAML text that begins with surgery: v1{advice}")
    return read_spec(content, file=file, folder=Path(path).parent)


def name_of_path(path: str | Path) -> str:
    """What messages call a spec that may not be there."""
    name = parse_spec_name(path)
    return name.file if name.point is None else f"{name.file}#{name.point}"


def _read_beginning(path: str) -> bytes:
    """The bytes of a file, or so many of them that it is seen to be too large."""
    if path in (STANDARD_INPUT, STDIN_FILE):
        return _read_once(sys.stdin.buffer)
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)


@functools.lru_cache(maxsize=1)
def _read_once(stream: BinaryIO) -> bytes:
    """So many bytes of a stream, as often as they are asked for: a command may load a spec more than once."""
    return stream.read(MAX_BYTES + 1)


def read_spec(text: str | bytes, *, file: str = "spec.yaml", folder: Path | None = None) -> Spec:
    """A spec from its text; `file` is what messages call it.

    Raises:
        SpecError: the spec has faults; all of them, with their places.
    """
    faults = Faults(file)
    document = read_document(text, faults)
    if document is None:
        faults.raise_if_any()
    spec = _read(document, text, file, folder or Path(), faults)
    faults.raise_if_any(partial=spec)
    assert spec is not None, "a spec without faults is complete"
    return spec


def _read(document: Value | None, text: str | bytes, file: str, folder: Path, faults: Faults) -> Spec | None:
    if not isinstance(document, Entries):
        if document is not None:
            faults.add(
                document.place, f"the spec is {describe(document)}; write a mapping that begins with surgery: v1"
            )
        return None
    document = check_keys(document, KEYS, "a spec", faults)
    _check_version(document, faults)
    groups, profile_groups = _read_groups(document.get("groups"), faults)
    vary = document.get("vary")
    variables = () if vary is None else read_variables(vary, faults)
    operations = _read_operations(document, groups, variables, faults)
    template = document.get("operations")
    cumulative, average = _read_beside_vary(document, variables, faults)
    group_entries = document.get("groups")
    names = (
        tuple((key.text, key.place) for key, _ in group_entries.entries) if isinstance(group_entries, Entries) else ()
    )
    return Spec(
        file=file,
        folder=folder,
        text=text if isinstance(text, str) else text.decode("utf-8-sig"),
        operations=operations,
        model=_optional_text(document, "model", faults),
        title=_optional_text(document, "title", faults),
        profile=_optional_text(document, "profile", faults),
        group_names=names,
        profile_groups=profile_groups,
        sweep=Sweep(variables, template, groups or {}) if variables and template is not None else None,
        cumulative=cumulative,
        average=average,
    )


def _read_beside_vary(
    document: Entries, variables: tuple[Variable, ...], faults: Faults
) -> tuple[Cumulative | None, tuple[str, ...]]:
    if document.get("vary") is not None and not variables:
        return None, ()
    adds_up, average = document.get("cumulative"), document.get("average")
    cumulative = None if adds_up is None else read_cumulative(adds_up, variables, faults)
    if average is None:
        return cumulative, ()
    along = None if cumulative is None else cumulative.over
    return cumulative, read_average(average, variables, document.get("operations"), along, faults)


def _optional_text(document: Entries, key: str, faults: Faults) -> str | None:
    value = document.get(key)
    return None if value is None else read_text(value, key, faults)


def _check_version(document: Entries, faults: Faults) -> None:
    version = document.get("surgery")
    if version is None:
        faults.add(document.place, f"the language version is missing; begin the spec with surgery: {VERSION}")
    elif not isinstance(version, Scalar) or version.text != VERSION:
        shown = shorten(version.text) if isinstance(version, Scalar) else describe(version)
        faults.add(
            version.place, f"the language version is {shown}; this program knows {VERSION}; write surgery: {VERSION}"
        )


def _read_groups(value: Value | None, faults: Faults) -> tuple[Groups | None, tuple[ProfileGroup, ...]]:
    """The groups by their names, those with faults empty; None where nobody can say which there are."""
    if value is None:
        return {}, ()
    if not isinstance(value, Entries):
        faults.add(value.place, f"groups is {describe(value)}; write names, like middle: transformer_blocks[4:15]")
        return None, ()
    groups: dict[str, tuple[Selector, ...]] = {}
    from_profiles: list[ProfileGroup] = []
    for key, item in value.entries:
        if GROUP_NAME.fullmatch(key.text) is None:
            faults.add(key.place, f'"{shorten(key.text)}" is no name for a group; write a word of letters and digits')
            groups[key.text] = ()
        elif isinstance(item, Scalar) and SIGN in item.text:
            found = read_profile_group(key.text, item, faults)
            if found is not None:
                from_profiles.append(found)
            groups[key.text] = () if found is None else (_selector_of(found),)
        else:
            groups[key.text] = _read_group(item, groups, faults)
    return groups, tuple(from_profiles)


def _selector_of(group: ProfileGroup) -> Selector:
    return Selector(group.reference, group.place, group.stack, (), group=group.reference)


def _read_group(value: Value, groups: Groups, faults: Faults) -> tuple[Selector, ...]:
    scalars = value.items if isinstance(value, Items) else (value,)
    if not scalars:
        faults.add(value.place, "a group is an empty list; write a selector, like transformer_blocks[4:15]")
    found: dict[tuple[str | None, ...], Selector] = {}
    num_parts = 0
    for scalar in scalars:
        if isinstance(scalar, Scalar) and isinstance(scalar.value, str):
            selectors = read_selector(scalar, groups, faults)
            num_parts += count_parts(selectors)
            if num_parts > MAX_PARTS:
                fact = f"a group stands for over {MAX_PARTS:,} indices and ranges"
                faults.add(scalar.place, f"{fact}; write ranges, like transformer_blocks[4:15]")
                return ()
            _add_to_group(found, selectors, scalar, faults)
        else:
            faults.add(scalar.place, f"a group is {describe(scalar)}; write a selector, like transformer_blocks[4:15]")
    return tuple(found.values())


def _add_to_group(
    found: dict[tuple[str | None, ...], Selector], selectors: tuple[Selector, ...], scalar: Scalar, faults: Faults
) -> None:
    """Each selector once: a group that names groups that name groups does not double with each of them."""
    keyed = {(selector.model, selector.text, selector.component): selector for selector in selectors}
    twice = [selector.text for key, selector in keyed.items() if key in found]
    if twice:
        faults.add(scalar.place, f"{shorten(twice[0])} is in the group a second time; name each layer once")
    found |= {key: selector for key, selector in keyed.items() if key not in found}


def _read_operations(
    document: Entries, groups: Groups | None, variables: tuple[Variable, ...], faults: Faults
) -> tuple[AnyOperation, ...]:
    value = document.get("operations")
    if value is None:
        faults.add(document.place, "operations is missing; write a list of operations, or [] for none")
        return ()
    reader = OperationReader(groups, faults)
    if document.get("vary") is None:
        return reader.read_all(value)
    if not variables:
        return ()
    found: tuple[AnyOperation, ...] = ()
    for bindings in samples(variables):
        found = reader.read_all(substitute(value, bindings, faults))
        faults.settle_found()  # with other values most of them would only be said again
        if reader.num_read > MAX_SWEPT_OPERATIONS:
            fact = f"over {MAX_SWEPT_OPERATIONS:,} operations for the values of the variables"
            faults.add(document.key_place("vary"), f"there are {fact}; write a smaller sweep")
            break
    return found
