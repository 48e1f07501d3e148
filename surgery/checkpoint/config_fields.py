"""Which fields of a config count or list the layers of a stack: found by changing them and building the class again.

There is no table of model classes here. A field counts a stack if the stack's length follows it; it lists layers if
taking one number out of it changes that block; it holds a value a layer if swapping two values changes their blocks, or
if the class wants one value more of it for one block more; it counts the first or the last blocks, which are of another
kind, if one more or less of it changes the block there.
"""

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from surgery.errors import InputError, RefusedError

MAX_CHOICES = 64  # of lists that must be as long as a stack: all sets of six
Build = Callable[[Mapping[str, Any]], nn.Module]  # a config -> the class on the meta device; InputError where it can't
Signature = tuple[Any, ...]


@dataclass(frozen=True)
class EndField:
    """A field that counts those blocks of a stack, its first or its last ones, that are of another kind.

    They are blocks `start` to `stop` (exclusive) of the original.
    """

    name: str
    start: int
    stop: int
    is_last: bool = False


@dataclass(frozen=True)
class ConfigFields:
    """By stack: the field that counts its blocks, those that list blocks by number, those with a value for each, and
    those that count its first or last blocks."""

    counts: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ends: Mapping[str, tuple[EndField, ...]] = field(default_factory=dict)


def find_config_fields(config: Mapping[str, Any], build: Build, orders: Mapping[str, Sequence[int]]) -> ConfigFields:
    """The fields that must follow when the blocks of each stack of `orders` become these, in this order.

    `config` holds every field of the class, defaults too.

    Raises:
        RefusedError: no field counts a stack whose length changes.
    """
    model = build(config)
    counts, lists, values = {}, {}, {}
    ends: dict[str, tuple[EndField, ...]] = {}
    for stack, order in orders.items():
        blocks = signatures(model, stack)
        if list(order) == list(range(len(blocks))):
            continue
        lists[stack] = tuple(name for name in config if _lists_layers(config, name, build, stack, blocks))
        values[stack] = tuple(name for name in config if _has_value_a_layer(config, name, build, stack, blocks))
        if len(order) != len(blocks):
            counts[stack], needed = _find_count(config, build, stack, len(blocks), values[stack])
            values[stack] += needed
        elif any(not _is_uniform(config[name]) for name in _lists_as_long(config, len(blocks), values[stack])):
            with contextlib.suppress(RefusedError):  # it has no such field, and no list by which to count
                values[stack] += _find_count(config, build, stack, len(blocks), values[stack])[1]
        count = {stack: counts[stack]} if stack in counts else {}
        own = ConfigFields(count, {stack: lists[stack]}, {stack: values[stack]})
        after = _try_build(config, edit_config(config, own, orders), build)
        if after is None or signatures(after, stack) != [blocks[layer] for layer in order]:  # of another kind somewhere
            tried = (_end_field(config, name, build, stack, blocks) for name in config if name not in counts.values())
            found = tuple(end for end in tried if end is not None)
            ends |= {stack: found} if found else {}
    return ConfigFields(counts, lists, values, ends)


def edit_config(config: Mapping[str, Any], fields: ConfigFields, orders: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The fields that change, with their new values.

    Raises:
        RefusedError: the blocks that a field counts would no longer stand at that end of their stack.
    """
    changed: dict[str, Any] = {}
    for stack, name in fields.counts.items():
        changed[name] = len(orders[stack])
    for stack, names in fields.lists.items():
        for name in names:
            listed = set(config[name])
            changed[name] = [position for position, layer in enumerate(orders[stack]) if layer in listed]
    for stack, names in fields.values.items():
        for name in names:
            changed[name] = [config[name][layer] for layer in orders[stack]]
    for stack, found in fields.ends.items():
        for end in found:
            number = _count_end(end, stack, orders[stack])
            if min(config[end.name], len(orders[stack])) != number:
                changed[end.name] = number
    return changed


def signatures(model: nn.Module, stack: str) -> list[Signature]:
    """What each block of a stack is: its class, and the names and shapes of its tensors."""
    return [
        (type(block).__name__, tuple((name, tuple(value.shape)) for name, value in block.state_dict().items()))
        for block in model.get_submodule(stack).children()
    ]


def _find_count(
    config: Mapping[str, Any], build: Build, stack: str, length: int, values: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """The field that a stack's length follows, and the lists that must be as long, though no tensor shows their values.

    One block more is tried first: a class that has values enough for fewer blocks may not say that it has too many.
    """
    numbers = [name for name, value in config.items() if type(value) is int and value > 0]
    others = _lists_as_long(config, length, values)
    sets = itertools.chain.from_iterable(itertools.combinations(others, size) for size in range(len(others) + 1))
    choices = list(itertools.islice(sets, MAX_CHOICES))
    for name in sorted(numbers, key=lambda name: config[name] != length):  # likely ones first
        for step, needed in itertools.product((1, -1), choices if config[name] == length else [()]):
            lists = {listed: _resize(config[listed], step) for listed in (*values, *needed)}
            model = _try_build(config, {name: config[name] + step, **lists}, build)
            if model is not None and len(list(model.get_submodule(stack).children())) == length + step:
                return name, needed
    raise RefusedError(
        f"no field of the config sets the length of {stack}, so a stock class can't have fewer or more blocks there"
    )


def _lists_as_long(config: Mapping[str, Any], length: int, known: Sequence[str]) -> tuple[str, ...]:
    """The lists with as many values as a stack has blocks, but for those of which it is known what they are."""
    return tuple(
        name
        for name, value in config.items()
        if isinstance(value, (list, tuple)) and len(value) == length and name not in known
    )


def _is_uniform(values: Sequence[Any]) -> bool:
    return all(item == values[0] for item in values)


def _resize(values: Sequence[Any], step: int) -> list[Any]:
    """One value less, or the last once more."""
    return [*values[:-1]] if step < 0 else [*values, values[-1]]


def _lists_layers(config: Mapping[str, Any], name: str, build: Build, stack: str, blocks: list[Signature]) -> bool:
    value = config[name]
    if not isinstance(value, (list, tuple)) or not value or not all(type(item) is int for item in value):
        return False
    if len(set(value)) != len(value) or not all(0 <= item < len(blocks) for item in value):
        return False
    model = _try_build(config, {name: type(value)(value[1:])}, build)
    return model is not None and _changed(model, stack, blocks) == {value[0]}


def _has_value_a_layer(config: Mapping[str, Any], name: str, build: Build, stack: str, blocks: list[Signature]) -> bool:
    value = config[name]
    if not isinstance(value, (list, tuple)) or len(value) != len(blocks):
        return False
    other = next((position for position, item in enumerate(value) if item != value[0]), None)
    if other is None:
        return False
    swapped = list(value)
    swapped[0], swapped[other] = swapped[other], swapped[0]
    model = _try_build(config, {name: type(value)(swapped)}, build)
    return model is not None and _changed(model, stack, blocks) == {0, other}


def _end_field(
    config: Mapping[str, Any], name: str, build: Build, stack: str, blocks: list[Signature]
) -> EndField | None:
    """The field, if it counts the first or the last blocks of a stack; more than there are count as all."""
    value, length = config[name], len(blocks)
    if type(value) is not int or value < 0:
        return None
    now = min(value, length)
    sides = {False, True}  # whether they are the last
    for number in filter(range(length + 1).__contains__, (now + 1, now - 1, now - 2)):
        model = _try_build(config, {name: number}, build)
        changed = None if model is None else _changed(model, stack, blocks)
        low, high = sorted((now, number))
        expected = {False: set(range(low, high)), True: set(range(length - high, length - low))}
        sides = {side for side in sides if changed == expected[side]}
        if not sides:
            return None
    return EndField(name, 0, now) if False in sides else EndField(name, length - now, length, is_last=True)


def _count_end(end: EndField, stack: str, order: Sequence[int]) -> int:
    """How many blocks of the kind that a field counts there are in an order; they must stand together at their end."""
    is_counted = [end.start <= layer < end.stop for layer in order]
    number = sum(is_counted)
    if is_counted != sorted(is_counted, reverse=not end.is_last):
        side = "last" if end.is_last else "first"
        raise RefusedError(
            f"{end.name} of the config says how many of the {side} blocks of {stack} are of their kind, and in this "
            f"order they would not be its {side}; move blocks within {stack}[{end.start}:{end.stop}] or outside of it"
        )
    return number


def _changed(model: nn.Module, stack: str, blocks: list[Signature]) -> set[int] | None:
    """The blocks that are others now; None where the stack has another length."""
    now = signatures(model, stack)
    return {i for i in range(len(now)) if now[i] != blocks[i]} if len(now) == len(blocks) else None


def _try_build(config: Mapping[str, Any], changes: Mapping[str, Any], build: Build) -> nn.Module | None:
    try:
        return build({**config, **changes})
    except InputError:
        return None
