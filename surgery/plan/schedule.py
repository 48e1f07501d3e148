"""The schedule of one stack: the tree that says what runs. Frozen data, no tensors.

Grammar of the canonical text (half open, like the spec language):

    schedule := item*                       items separated by one space; an empty schedule is "-"
    item     := layer | run | group | repeat
    layer    := INDEX ["*" FACTOR]          the layer; its residual update scaled by FACTOR
    run      := FIRST ":" END               layers FIRST, FIRST+1, ..., END-1, each once
    group    := "(" layer ("|" layer)+ ")" ["+"]  ["x" LOOPS]    parallel; "+" sums the updates, otherwise the mean
    repeat   := "(" item+ ")" "x" TIMES
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

from surgery.spec.operations import Combine


@dataclass(frozen=True)
class Layer:
    """One execution of block `index`; its residual update is multiplied by `scale`."""

    index: int
    scale: float = 1.0


@dataclass(frozen=True)
class Group:
    """Layers that get the same input; their outputs are combined per stream. The whole runs `loops` times."""

    layers: tuple[Layer, ...]
    combine: Combine = "mean"
    loops: int = 1


@dataclass(frozen=True)
class Repetition:
    """Items that run in order, `times` times in a row."""

    items: tuple["Item", ...]
    times: int


Item = Layer | Group | Repetition


@dataclass(frozen=True)
class Schedule:
    """What runs in place of the blocks of stack `stack`, which has `num_blocks` blocks."""

    stack: str
    num_blocks: int
    items: tuple[Item, ...] = field(default=())

    @property
    def is_identity(self) -> bool:
        """Whether every block runs once, in order, unscaled."""
        return self.items == tuple(Layer(index) for index in range(self.num_blocks))

    @property
    def used(self) -> frozenset[int]:
        """The indices of the blocks that run at all."""
        return frozenset(layer.index for layer in iter_layers(self.items))

    @property
    def removed(self) -> tuple[int, ...]:
        """The indices of the blocks that never run, ascending."""
        return tuple(index for index in range(self.num_blocks) if index not in self.used)


def iter_layers(items: tuple[Item, ...]) -> Iterator[Layer]:
    """The layers of a schedule as written: each once, however often it is repeated."""
    for item in items:
        match item:
            case Layer():
                yield item
            case Group(layers):
                yield from layers
            case Repetition(inner):
                yield from iter_layers(inner)
            case _:
                assert_never(item)


def unroll(items: tuple[Item, ...]) -> Iterator[Layer]:
    """The layers one after the other: a repetition as often as it runs, the members of a group in their order, once."""
    for item in items:
        match item:
            case Layer():
                yield item
            case Group(layers):
                yield from layers
            case Repetition(inner, times):
                for _ in range(times):
                    yield from unroll(inner)
            case _:
                assert_never(item)


def count_executions(items: tuple[Item, ...]) -> dict[int, int]:
    """How often each block runs in one forward."""
    counts: dict[int, int] = {}

    def count(inner: tuple[Item, ...], times: int) -> None:
        for item in inner:
            match item:
                case Layer(index):
                    counts[index] = counts.get(index, 0) + times
                case Group(layers, _, loops):
                    count(layers, times * loops)
                case Repetition(repeated, rounds):
                    count(repeated, times * rounds)
                case _:
                    assert_never(item)

    count(items, 1)
    return counts


def canonical(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The one form in which a plan holds these items: what runs is the same, to the bit.

    What is repeated once is inlined, the repetition of one repetition or group is multiplied out, a group of one layer
    is the repetition of it, and so is a layer that follows itself.
    """
    flat: list[Item] = []
    for item in items:
        flat.extend(_canonical_item(item))
    merged: list[Item] = []
    for item in flat:
        previous = merged[-1] if merged else None
        layer, times = _as_repeats(item)
        last_layer, last_times = _as_repeats(previous)
        if layer is not None and layer == last_layer:
            merged[-1] = Repetition((layer,), times + last_times)
        else:
            merged.append(item)
    return tuple(merged)


def _canonical_item(item: Item) -> tuple[Item, ...]:
    match item:
        case Layer():
            return (item,)
        case Group((layer,), _, loops):
            return _canonical_item(Repetition((layer,), loops))
        case Group():
            return (item,)
        case Repetition(inner, times):
            settled = canonical(inner)
            if times == 1:
                return settled
            if len(settled) == 1:
                return (_times(settled[0], times),)
            return (Repetition(settled, times),)
        case _:
            assert_never(item)


def _times(item: Item, times: int) -> Item:
    match item:
        case Layer():
            return Repetition((item,), times)
        case Group(layers, combine, loops):
            return Group(layers, combine, loops * times)
        case Repetition(inner, rounds):
            return Repetition(inner, rounds * times)
        case _:
            assert_never(item)


def _as_repeats(item: Item | None) -> tuple[Layer | None, int]:
    match item:
        case Layer():
            return item, 1
        case Repetition((Layer() as layer,), times):
            return layer, times
        case _:
            return None, 0
