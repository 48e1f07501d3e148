"""The prefix tree of plans: what many variants have in common before they first differ, as data.

A variant is a sequence of steps, each a block or a parallel group with all that the plan does to it. In the tree of
their sequences a common beginning is one path, so that a walk through the tree, depth first, runs it once. Where the
path branches, the states between the blocks are held until the last branch has begun.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from surgery.plan.plan import Plan
from surgery.plan.schedule import Group, Item, Layer, Repetition, Schedule

Replaced = tuple[tuple[str, str, str | None], ...]
ROOT = 0


@dataclass(frozen=True)
class Step:
    """A layer or one round of a parallel group, and for each of its layers the components that are replaced in it."""

    stack: str
    item: Layer | Group
    replaced: tuple[Replaced, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that it runs."""
        return _layers_of(self.item)

    @property
    def num_runs(self) -> int:
        """How many blocks it runs."""
        return len(self.layers)


@dataclass
class PrefixTree:
    """The tree of some plans; node 0 is the root, and a node comes after its parent.

    `steps` leads to each node from its parent, `children` from it onwards; `ends` are the numbers of the plans that end
    at a node.
    """

    parents: list[int] = field(default_factory=lambda: [ROOT])
    steps: list[Step | None] = field(default_factory=lambda: [None])
    children: list[dict[Step, int]] = field(default_factory=lambda: [{}])
    ends: dict[int, list[int]] = field(default_factory=dict)

    @property
    def num_runs(self) -> int:
        """The runs of blocks of one walk through it."""
        return sum(step.num_runs for step in self.steps if step is not None)

    def add(self, number: int, steps: Sequence[Step]) -> None:
        """Add the plan of this number."""
        node = ROOT
        for step in steps:
            if step not in self.children[node]:
                self.children[node][step] = len(self.steps)
                self.parents.append(node)
                self.steps.append(step)
                self.children.append({})
            node = self.children[node][step]
        self.ends.setdefault(node, []).append(number)


def steps_of(plan: Plan, stacks: Sequence[tuple[str, int]]) -> tuple[Step, ...]:
    """The steps of a plan; `stacks` are all names with numbers of blocks, and run as they are by default."""
    replaced: dict[tuple[str, int], Replaced] = {}
    for each in plan.replacements:
        found = (each.component, each.kind, each.values)
        replaced[each.stack, each.index] = (*replaced.get((each.stack, each.index), ()), found)
    schedules = {schedule.stack: schedule for schedule in plan.schedules}
    steps: list[Step] = []
    for name, num_blocks in stacks:
        unedited = Schedule(name, num_blocks, tuple(map(Layer, range(num_blocks))))
        for item in _rounds(schedules.get(name, unedited).items):
            within = tuple(replaced.get((name, layer.index), ()) for layer in _layers_of(item))
            steps.append(Step(name, item, within))
    return tuple(steps)


def prefix_tree(plans: Sequence[Plan], numbers: Sequence[int] | None = None) -> PrefixTree:
    """The tree of these plans, or of those with these numbers."""
    stacks = list(dict.fromkeys((each.stack, each.num_blocks) for plan in plans for each in plan.schedules))
    tree = PrefixTree()
    for number in range(len(plans)) if numbers is None else numbers:
        tree.add(number, steps_of(plans[number], stacks))
    return tree


def count_runs(plans: Sequence[Plan]) -> int:
    """The runs of blocks of a forward of each plan, one after the other."""
    stacks = list(dict.fromkeys((each.stack, each.num_blocks) for plan in plans for each in plan.schedules))
    return sum(step.num_runs for plan in plans for step in steps_of(plan, stacks))


@dataclass(frozen=True)
class Walk:
    """The plans, by number, in an order in which what they share need not be run again; no more states are `held`."""

    numbers: tuple[int, ...]
    held: int


def walks_through(tree: PrefixTree, max_held: int) -> list[Walk]:
    """One walk through the tree, or more where it would hold more than `max_held` states at a time.

    What needs more is walked for itself, from the first step on: a beginning is run again rather than held.
    """
    needs = [0] * len(tree.steps)
    kept: list[list[int]] = [[] for _ in tree.steps]
    starts: list[int] = []
    for node in reversed(range(len(tree.steps))):
        below = sorted(tree.children[node].values(), key=lambda child: needs[child])
        while len(below) + (node in tree.ends) > 1 and _need(needs, below, node in tree.ends) > max_held:
            starts.append(below.pop(-1 if len(below) == 1 else -2))
        needs[node], kept[node] = _need(needs, below, node in tree.ends), below
    return [Walk(tuple(_ends_below(tree, kept, start)), needs[start]) for start in (ROOT, *reversed(starts))]


def _need(needs: Sequence[int], below: Sequence[int], is_end: bool) -> int:
    """The states held below a node whose branches begin in the order of what they need; an end is the first of them."""
    *first, last = ([0] if is_end else []) + [needs[child] for child in below]
    return max([need + 1 for need in first] + [last])


def _ends_below(tree: PrefixTree, kept: Sequence[Sequence[int]], start: int) -> Iterator[int]:
    """The plans that end at a node or below it, depth first."""
    pending = [start]
    while pending:
        node = pending.pop()
        yield from tree.ends.get(node, ())
        pending.extend(reversed(kept[node]))


def _rounds(items: Sequence[Item]) -> Iterator[Layer | Group]:
    """The items of a schedule one after the other: each layer and each round of a group."""
    for item in items:
        match item:
            case Layer():
                yield item
            case Group(_, _, loops):
                yield from [replace(item, loops=1)] * loops
            case Repetition(inner, times):
                for _ in range(times):
                    yield from _rounds(inner)
            case _:
                assert_never(item)


def _layers_of(item: Layer | Group) -> tuple[Layer, ...]:
    return (item,) if isinstance(item, Layer) else item.layers
