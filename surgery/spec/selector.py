"""Selectors: `transformer_blocks[4:15, 20].attn1` as data. Python subscripts on a stack's name, and a component.

selector   := [MODEL "/"] target                                  MODEL: transformer, transformer_2, or * for both
target     := stack "[" part ("," part)* "]" ["." component]  |  GROUP ["." component]
part       := INT | [INT] ":" [INT] [":" INT]
stack      := names joined by dots; "*" stands for any one name
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from surgery.spec.document import Scalar
from surgery.spec.limits import MAX_INDEX
from surgery.spec.nearest import nearest, shorten, unknown_text
from surgery.spec.places import Faults, Place

CLOSED_RANGE = re.compile(r"(\d{1,6})\s*(?:-|–|\.{2,3})\s*(\d{1,6})")
NUMBERED = re.compile(r"(?P<stack>[^\W\d][\w.]*?)\.(?P<first>\d{1,6})(?:-(?P<last>\d{1,6}))?(?P<component>\.[\w.*]+)?")
NAME = re.compile(r"(?:[A-Za-z_0-9]\w*|\*)(?:\.(?:[A-Za-z_0-9]\w*|\*))*")
FIRST, SECOND, BOTH = "transformer", "transformer_2", "*"
MODELS = (FIRST, SECOND)


@dataclass(frozen=True)
class Index:
    """One layer, counted from the end where negative."""

    value: int
    place: Place


@dataclass(frozen=True)
class Range:
    """A half-open range with a positive step, as Python's slices."""

    start: int | None
    stop: int | None
    step: int | None
    place: Place


Part = Index | Range


@dataclass(frozen=True)
class Selector:
    """Layers of a stack (`stack` may hold `*`), or components of them (`component`, which may hold `*`).

    `model` is None or the leading `transformer`, `transformer_2` or `*`. `group` is the reference of a group that a
    profile defines: its layers are known once the profile is read, and until then there are no `parts`.
    """

    text: str
    place: Place
    stack: str
    parts: tuple[Part, ...]
    component: str | None = None
    component_place: Place | None = None
    model: str | None = None
    group: str | None = None

    def with_component(self, component: str, place: Place) -> "Selector":
        """The components of this name of the same layers."""
        return replace(self, component=component, component_place=place)


Groups = Mapping[str, tuple[Selector, ...]]


def count_parts(selectors: Iterable[Selector]) -> int:
    """How many indices and ranges there are in selectors; one that waits for its profile counts as one."""
    return sum(len(selector.parts) or 1 for selector in selectors)


def read_selector(scalar: Scalar, groups: Groups | None, faults: Faults) -> tuple[Selector, ...]:
    """The selectors that a text stands for: one, or those of its group; none (and faults) where it is malformed.

    A group without selectors has a fault, and so have `groups` that are None: then no more is said of what names one.
    """
    text = scalar.text
    model, rest, offset = None, text, 0
    if "/" in text.split("[")[0] and ".safetensors" not in text:
        model, _, rest = text.partition("/")
        offset = len(model) + 1
        if model.strip() not in (*MODELS, BOTH):
            faults.add(scalar.place_of(0), unknown_text("model part", model, MODELS))
            return ()
        model = model.strip()
    if any(not known and (rest == group or rest.startswith(f"{group}.")) for group, known in (groups or {}).items()):
        return ()
    name = NAME.match(rest)
    if name is None:
        faults.add(
            scalar.place_of(0), f'"{shorten(text)}" is no selector; write a stack and a subscript, like "blocks[4:15]"'
        )
        return ()
    after = rest[name.end() :]
    if after.startswith("["):
        return _read_subscript(scalar, model, name.group(0), rest, offset=offset, faults=faults)
    if after.strip():
        meant = _bracketed(rest)
        advice = f'did you mean "{meant}"?' if meant else "write a subscript in brackets, like [4:15]"
        faults.add(
            scalar.place_of(offset + name.end()),
            f'unexpected "{shorten(after)}" after {shorten(name.group(0))}; {advice}',
        )
        return ()
    if groups is None:
        return ()
    found = _read_group(scalar, name.group(0), offset, groups, faults)
    return found if model is None else tuple(replace(selector, model=model) for selector in found)


def _read_group(scalar: Scalar, name: str, offset: int, groups: Groups, faults: Faults) -> tuple[Selector, ...]:
    group, _, component = name.partition(".")
    place = scalar.place_of(offset)
    if group not in groups:
        exists = f"there is the group {' and the group '.join(groups)}" if groups else "no groups are defined"
        meant = nearest(group, groups) or _bracketed(name)
        advice = f'did you mean "{meant}"?' if meant else f'for all layers of a stack write "{shorten(name)}[:]"'
        faults.add(place, f'"{shorten(name)}" has no subscript and is no group; {exists}; {advice}')
        return ()
    if not component:
        return groups[group]
    if any(selector.component is not None for selector in groups[group]):
        faults.add(place, f"the group {group} names components, not layers; leave .{shorten(component)} out")
        return ()
    place = place.after(len(group) + 1)
    return tuple(selector.with_component(component, place) for selector in groups[group])


def _bracketed(text: str) -> str | None:
    """`transformer_blocks.5.attn` as a selector, `transformer_blocks[5].attn`; None where no number follows a name."""
    found = NUMBERED.fullmatch(text.strip())
    if found is None:
        return None
    subscript = found["first"] if found["last"] is None else _half_open(found["first"], found["last"])
    return f"{found['stack']}[{subscript}]{found['component'] or ''}"


def _half_open(first: str, last: str) -> str:
    return f"{int(first)}:{int(last) + 1}"


def _read_subscript(
    scalar: Scalar, model: str | None, stack: str, rest: str, *, offset: int, faults: Faults
) -> tuple[Selector, ...]:
    opening = len(stack)
    closing = rest.find("]", opening)
    if closing < 0:
        faults.add(scalar.place_of(offset + len(rest)), "the subscript is not closed; write ] after the last index")
        return ()
    parts = _read_parts(scalar, rest[opening + 1 : closing], offset + opening + 1, faults)
    tail = rest[closing + 1 :].rstrip()
    if parts is None:
        return ()
    if not tail:
        return (Selector(scalar.text, scalar.place, stack, parts, model=model),)
    component = NAME.fullmatch(tail[1:])
    place = scalar.place_of(offset + closing + 2)
    if not tail.startswith(".") or component is None:
        rule = "* stands for a whole name" if "*" in tail else 'a component follows after a dot, like ".attn1"'
        faults.add(scalar.place_of(offset + closing + 1), f'unexpected "{shorten(tail)}" after the subscript; {rule}')
        return ()
    return (Selector(scalar.text, scalar.place, stack, parts, component.group(0), place, model),)


def _read_parts(scalar: Scalar, text: str, offset: int, faults: Faults) -> tuple[Part, ...] | None:
    if not text.strip():
        faults.add(scalar.place_of(offset), "the subscript is empty; for all layers write [:]")
        return None
    found: list[Part] = []
    for piece in text.split(","):
        place = scalar.place_of(offset + len(piece) - len(piece.lstrip()))
        part = _read_part(piece.strip(), place, faults)
        offset += len(piece) + 1
        if part is None:
            return None
        found.append(part)
    return tuple(found)


def _read_part(text: str, place: Place, faults: Faults) -> Part | None:
    fields = [field.strip() for field in text.split(":")]
    if len(fields) > 3 or not all(re.fullmatch(r"-?[0-9]+", field) for field in fields if field) or fields == [""]:
        closed = CLOSED_RANGE.fullmatch(text)
        advice = "write an integer or a half-open range, like 7 or 9:12"
        if closed is not None and int(closed[1]) <= int(closed[2]):
            ends = f"{int(closed[1])} to {int(closed[2])}"
            advice = f"ranges are half open: for layers {ends} write {_half_open(*closed.groups())}"
        faults.add(place, f'"{shorten(text)}" is no index; {advice}')
        return None
    numbers = [int(field) if field and len(field) < 8 else None for field in fields]
    if any(
        field and (number is None or abs(number) > MAX_INDEX) for field, number in zip(fields, numbers, strict=True)
    ):
        faults.add(place, f"{shorten(text)} is larger than any stack; write an index of the stack")
        return None
    if len(numbers) == 1:
        return Index(numbers[0] or 0, place)
    start, stop, step = [*numbers, None][:3]
    if step is not None and step < 1:
        faults.add(place, f"the step {step} is not positive; to turn layers around, use the operation reverse")
        return None
    return Range(start, stop, step, place)


def indices_to_text(indices: Iterable[int]) -> str:
    """`3`, `4:15` or `0:4, 7`: the layers as a subscript names them."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([index, index + 1])
    return ", ".join(str(first) if end == first + 1 else f"{first}:{end}" for first, end in runs)


def indices_of_part(part: Part, num_blocks: int) -> list[int] | None:
    """The layers of a part in a stack of `num_blocks`; None for an index that is out of range."""
    match part:
        case Index(value):
            index = value + num_blocks if value < 0 else value
            return [index] if 0 <= index < num_blocks else None
        case Range(start, stop, step):
            return list(range(num_blocks))[start:stop:step]
