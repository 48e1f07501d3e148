"""The algebra of schedules: what each operation makes of the items of one stack. Pure; nothing here knows a spec.

Operations but `without` are given positions: those of the top-level items that they take, ascending.
"""

import random
from collections.abc import Collection, Sequence
from typing import assert_never

from surgery.plan.schedule import Group, Item, Layer, Repetition, iter_layers
from surgery.spec.operations import Combine

Items = tuple[Item, ...]


def covered_positions(items: Items, chosen: Collection[int]) -> list[int]:
    """The positions of the items whose layers are all among the chosen."""
    return [at for at, item in enumerate(items) if all(layer.index in chosen for layer in iter_layers((item,)))]


def partly_covered(items: Items, chosen: Collection[int]) -> Item | None:
    """The first group or repetition with a layer among the chosen, and one that is not."""
    for item in items:
        if len({layer.index in chosen for layer in iter_layers((item,))}) > 1:
            return item
    return None


def items_between(items: Items, positions: Sequence[int]) -> Items:
    """What stands between the first and the last of the positions beside them; nothing where they are neighbours."""
    return tuple(items[at] for at in range(positions[0], positions[-1] + 1) if at not in positions)


def without(items: Items, chosen: Collection[int]) -> Items:
    """The items without these layers, in groups and repetitions too."""
    left: list[Item] = []
    for item in items:
        match item:
            case Layer():
                if item.index not in chosen:
                    left.append(item)
            case Group(layers, combine, loops):
                members = tuple(layer for layer in layers if layer.index not in chosen)
                if members:
                    left.append(Group(members, combine, loops))
            case Repetition(inner, times):
                rest = without(inner, chosen)
                if rest:
                    left.append(Repetition(rest, times))
            case _:
                assert_never(item)
    return tuple(left)


def repeated(items: Items, positions: Sequence[int], times: int) -> Items:
    """The neighbours at these positions run `times` times in a row."""
    first, last = positions[0], positions[-1] + 1
    return items if times == 1 else (*items[:first], Repetition(items[first:last], times), *items[last:])


def filled(items: Items, positions: Sequence[int], layer: Layer) -> Items:
    """One layer runs in each of these places."""
    return _placed(items, positions, [layer] * len(positions))


def reversed_(items: Items, positions: Sequence[int]) -> Items:
    """The items at these positions in reverse order."""
    return _placed(items, positions, [items[at] for at in reversed(positions)])


def shuffled(items: Items, positions: Sequence[int], seed: int) -> Items:
    """The items at these positions in the order of `random.Random(seed).shuffle`."""
    placed = [items[at] for at in positions]
    random.Random(seed).shuffle(placed)
    return _placed(items, positions, placed)


def grouped(items: Items, positions: Sequence[int], combine: Combine, loops: int) -> Items | None:
    """The neighbours at these positions as one group; None where they are not all layers."""
    first, last = positions[0], positions[-1] + 1
    members = tuple(item for item in items[first:last] if isinstance(item, Layer))
    return (*items[:first], Group(members, combine, loops), *items[last:]) if len(members) == last - first else None


def scaled(items: Items, positions: Sequence[int], factor: float) -> Items:
    """The residual updates of all layers at these positions are multiplied by a factor."""
    return _placed(items, positions, [_scaled(items[at], factor) for at in positions])


def _scaled(item: Item, factor: float) -> Item:
    match item:
        case Layer(index, scale):
            return Layer(index, scale * factor)
        case Group(layers, combine, loops):
            return Group(tuple(Layer(layer.index, layer.scale * factor) for layer in layers), combine, loops)
        case Repetition(inner, times):
            return Repetition(tuple(_scaled(part, factor) for part in inner), times)
        case _:
            assert_never(item)


def _placed(items: Items, positions: Sequence[int], placed: Sequence[Item]) -> Items:
    """The items with those at `positions` exchanged for `placed`."""
    after = list(items)
    for at, item in zip(positions, placed, strict=True):
        after[at] = item
    return tuple(after)
