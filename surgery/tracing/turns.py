"""Where the steps of a stack begin and end, told by the turns of the loop in which the forward calls its blocks.

What a turn does before it calls its block leads into this block, what it does after leads out of it. Between the two,
where one turn ends and the next begins, lies what goes on from block to block: the streams.
"""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NoReturn

import torch
from torch import fx

from surgery.errors import RefusedError
from surgery.tracing.forms import COMMUTATIVE, OPERANDS, is_arithmetic, name_of
from surgery.tracing.gaps import READS, Bounds, Column, Gaps
from surgery.tracing.places import Side, Turn, place_of, turns_of

Starts = Mapping[int, fx.Node]  # by the number of a stream, what it is before the first turn


def bounds_of_turns(gaps: Gaps) -> Bounds | None:
    """The bounds of the steps of a stack; None where the code does not tell in whose turn something is done.

    Raises:
        RefusedError: it does, but not what of it goes on to the next turn.
    """
    turns = turns_of(gaps.around.calls)
    if turns is None:
        return None
    reader = Reader(gaps, turns)
    return reader.bounds() if reader.is_told() else None


class Reader:
    """`led_in[i]` is what leads into block i in its turn, `left` what leads out of the last block in its turn."""

    def __init__(self, gaps: Gaps, turns: Sequence[Turn]) -> None:
        self.gaps, self.around, self.turns = gaps, gaps.around, turns
        self.led_in = [
            {node for node in gaps.nodes[gap] if self.side(node, gap) is Side.BEFORE} for gap in range(len(turns))
        ]
        self.left = [node for node in gaps.nodes[-1] if turns[-1].side(place_of(node)) is Side.AFTER]
        self.roles: list[tuple[int, Column]] = []  # the streams: the argument they enter as, and what begins each turn

    def side(self, node: fx.Node, gap: int) -> Side | None:
        """Whether a node of a gap leads out of the block before it (AFTER) or into the one behind it (BEFORE)."""
        place = place_of(node)
        into = self.turns[gap].side(place) is Side.BEFORE
        out = gap > 0 and self.turns[gap - 1].side(place) is Side.AFTER
        return None if into == out else Side.BEFORE if into else Side.AFTER

    def is_told(self) -> bool:
        """Whether all that makes what enters a block is done in a turn."""
        return all(
            node in self.around.calls or node.target is operator.getitem or self.side(node, gap) is not None
            for gap in self.gaps.between
            for column in self.around.columns
            for node in self.gaps.way(gap, self.around.calls[gap - 1 : gap], {column[gap]})
        )

    def bounds(self) -> Bounds:
        self.roles = self.find_roles()
        if not self.roles:
            self.refuse("nothing is seen to go on from block to block")
        starts = [self.start_of(number) for number in range(len(self.roles))]
        for start in starts:
            self.refuse_read_again(start)
        columns = tuple((start, *begins) for start, (_, begins) in zip(starts, self.roles, strict=True))
        exits = self.exits()
        ways = self.gaps.way(0, set(starts), self.around.calls[0].all_input_nodes)
        owned = [self.led_in[0].intersection(ways), *self.led_in[1:]]
        ends = {end for end in exits if end is not None}
        owned[-1] = owned[-1].union(self.gaps.way(len(self.turns), self.around.calls[-1:], ends))
        return Bounds(tuple(stream for stream, _ in self.roles), columns, tuple(map(frozenset, owned)), exits)

    # What begins the turns between two blocks.

    def find_roles(self) -> list[tuple[int, Column]]:
        """The streams: what enters one turn after the other, as what."""
        fronts = {
            stream: [self.front(column[gap], gap) for gap in self.gaps.between]
            for stream, column in enumerate(self.around.columns)
        }
        found: dict[Column, int] = {}
        if not self.gaps.between:
            return [(stream, ()) for stream in fronts]
        for stream in sorted(fronts, key=lambda stream: max(map(len, fronts[stream]))):
            known = [{begins[number] for begins in found} for number in range(len(self.gaps.between))]
            rest = [[node for node in nodes if node not in k] for nodes, k in zip(fronts[stream], known, strict=True)]
            for begins in self.alike(stream, rest):
                found[begins] = stream
        return sorted(((stream, begins) for begins, stream in found.items()), key=lambda role: role[0])

    def front(self, end: fx.Node, gap: int) -> list[fx.Node]:
        """What begins the turn behind a gap, of all that leads to `end` in it; context, too, before the first one."""
        pending, found, seen = [end], list[fx.Node](), set[fx.Node]()
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self.led_in[gap]:
                pending += reversed(node.all_input_nodes if gap else self.carried_into(node))
            elif self.around.depths[node] == gap - 1:
                found.append(node)
        return found

    def carried_into(self, first: fx.Node) -> list[fx.Node]:
        """The operands of a node of the first turn that are made of streams where the same code runs in other turns."""
        operands = _operands(first)
        twins = [
            (gap, _operands(node))
            for gap in self.gaps.between
            for node in self.led_in[gap]
            if place_of(node) == place_of(first) and _operands(node).keys() == operands.keys()
        ]
        carried = {
            operands[key]: None
            for gap, twin in twins
            for key, used in twin.items()
            if isinstance(used, fx.Node) and self.around.depths[used] == gap - 1
        }
        return [node for node in carried if isinstance(node, fx.Node)] if twins else first.all_input_nodes

    def alike(self, stream: int, fronts: Sequence[Sequence[fx.Node]]) -> list[Column]:
        """What begins each turn, put together to streams, told by the code that has made them."""
        keyed = [{self.key(node, gap): node for node in nodes} for gap, nodes in enumerate(fronts, start=1)]
        shared = [key for key in keyed[0] if all(key in keys for keys in keyed)]
        rest = [[node for key, node in keys.items() if key not in shared] for keys in keyed]
        is_distinct = all(len(keys) == len(nodes) for keys, nodes in zip(keyed, fronts, strict=True))
        if not is_distinct or len({len(nodes) for nodes in rest}) > 1 or len(rest[0]) > 1:
            column = self.around.columns[stream]
            self.refuse(f"`{column[1]}` and `{column[-1]}` enter their blocks, not made of the same streams")
        return [tuple(keys[key] for keys in keyed) for key in shared] + [
            tuple(nodes) for nodes in zip(*rest, strict=True)
        ]

    def key(self, node: fx.Node, gap: int) -> Any:
        """What tells which of the nodes of a turn this is: the number of an output, or the code that has made it."""
        numbers = [number for number, output in self.around.outputs[gap - 1].items() if output is node]
        return ("output", numbers[0]) if numbers else ("place", place_of(node))

    # What begins the first turn.

    def start_of(self, number: int) -> fx.Node:
        """What a stream is before the first turn: what stands there in the place of what it is later on."""
        stream, _ = self.roles[number]
        first = self.around.columns[stream][0]
        found = {
            starts[number]: None
            for column in self.around.columns
            for gap in self.gaps.between
            for starts in self.matches(gap, column[gap], column[0], is_same_code=False)
            if number in starts
        }
        if not found:
            is_alone = sum(role[0] == stream for role in self.roles) == 1
            found = dict.fromkeys(self.front(first, 0) if is_alone else ())
        if len(found) != 1:
            self.refuse(f"`{first}` is made before the first block of several things that may be the stream")
        return next(iter(found))

    def refuse_read_again(self, start: fx.Node) -> None:
        """Refuse if what enters the first turn is given to later ones beside the stream: in the first they are one."""
        order = {node: position for position, node in enumerate(self.gaps.graph.nodes)}
        first, *later = (order[call] for call in self.around.calls)
        for user in start.users:
            side = self.turns[-1].side(place_of(user))
            is_before = side is Side.BEFORE and order[user] > first
            is_after = side is Side.AFTER and bool(later) and order[user] > later[0]
            if order[user] in later or (user.target not in READS and (is_before or is_after)):
                self.refuse(f"`{start}` is what enters the first block, and `{user}` goes back to it beside the stream")

    def matches(self, gap: int, later: fx.Node, first: fx.Node, *, is_same_code: bool) -> Iterator[Starts]:
        """The ways to read `first` as what `later` is, with what begins the first turn in the place of the streams."""
        roles = [number for number, (_, begins) in enumerate(self.roles) if begins[gap - 1] is later]
        if roles:
            if first not in self.led_in[0]:
                yield {roles[0]: first}
        elif later in self.led_in[gap] and first not in self.led_in[0]:  # nothing is done to the stream in the first
            front = self.front(later, gap)
            roles = [number for number, (_, begins) in enumerate(self.roles) if begins[gap - 1] in front]
            if len(roles) == 1:
                yield {roles[0]: first}
        elif later in self.led_in[gap] and first in self.led_in[0] and _name(later) == _name(first):
            is_same_code = place_of(later) == place_of(first)
            for pairs in _pairings(later, first, is_same_code=is_same_code):
                parts = [list(self.matches(gap, *pair, is_same_code=is_same_code)) for pair in pairs]
                yield from (joined for found in product(*parts) if (joined := _joined(found)) is not None)
        elif self.around.depths[later] < 0 and (is_same_code or self.are_alike(later, first)):
            yield {}

    def are_alike(self, one: fx.Node, other: fx.Node) -> bool:
        return self.gaps.forms.contexts[one] == self.gaps.forms.contexts[other]

    # What ends the last turn.

    def exits(self) -> tuple[fx.Node | None, ...]:
        """What the streams are after the last turn: made by the code that ends the others, or all that comes of it."""
        behind = len(self.turns)
        outputs = list(self.around.outputs[-1].values())
        ends = [node for node in (*outputs, *self.left) if isinstance(node.meta.get("value"), torch.Tensor)]
        inside = {*self.left, *outputs}
        taken = [node for node in ends if not inside.issuperset(node.users) or not node.users]
        found: list[fx.Node | None] = []
        for number, (stream, begins) in enumerate(self.roles):
            keys = {self.key(node, gap) for gap, node in enumerate(begins, start=1)}
            keys |= set() if begins else {("output", self.around.continued[stream])}
            alike = [node for node in ends if self.key(node, behind) in keys and self.continues(number, node)]
            found.append(alike[-1] if alike else None)
        for end in taken:
            if end not in found:
                self.assign(end, found, taken)
        return tuple(found)

    def assign(self, end: fx.Node, found: list[fx.Node | None], taken: Sequence[fx.Node]) -> None:
        """Take `end` for what a stream is in the end, where the stream has no other and it is made of the same."""
        behind = len(self.turns)
        free = [
            number
            for number, known in enumerate(found)
            if known is None or (known not in taken and end in self.gaps.reached(behind, [known]))
            if self.continues(number, end)
        ]
        if len(free) > 1:
            self.refuse(f"`{end}` behind the last block may be one stream or another")
        if free:
            found[free[0]] = end

    def continues(self, number: int, end: fx.Node) -> bool:
        """Whether `end` is made of what makes a stream in other turns: of these outputs of the block."""
        stream, begins = self.roles[number]
        made = {self.made_of(node, gap) for gap, node in enumerate(begins, start=1)}
        return self.made_of(end, len(self.turns)) in (made or {frozenset({self.around.continued[stream]})})

    def made_of(self, end: fx.Node, gap: int) -> frozenset[Any]:
        """The numbers of the outputs of a block of which a node of the gap behind it is made."""
        outputs = self.around.outputs[gap - 1]
        made = {end, *self.gaps.way(gap, self.around.calls[gap - 1 : gap], {end})}
        used = made.union(*(node.all_input_nodes for node in made))
        return frozenset(number for number, output in outputs.items() if output in used)

    def refuse(self, fact: str) -> NoReturn:
        stack = self.around.stack
        raise RefusedError(f"{stack} can't be edited: {fact}, and with which block that goes can't be told")


def _name(node: fx.Node) -> tuple[str, str]:
    return node.op, "".join(letter for letter in name_of(node) if not letter.isdigit())


def _pairings(later: fx.Node, first: fx.Node, *, is_same_code: bool) -> Iterator[list[tuple[fx.Node, fx.Node]]]:
    """The ways in which the operands of one node stand for those of another that does the same."""
    one, other = _operands(later), _operands(first)
    orders = [list(other.values())]
    if one.keys() != other.keys():
        return
    if not is_same_code and is_arithmetic(later) and name_of(later) in COMMUTATIVE and len(other) == len(OPERANDS):
        orders.append(orders[0][::-1])
    for order in orders:
        pairs = list(zip(one.values(), order, strict=True))
        if all(isinstance(a, fx.Node) == isinstance(b, fx.Node) for a, b in pairs):
            yield [(a, b) for a, b in pairs if isinstance(a, fx.Node)]


def _operands(node: fx.Node) -> dict[Any, Any]:
    """The operands of a node by place or name; those of arithmetic by name, and in the order of the names."""
    if is_arithmetic(node):
        named = {**dict(zip(OPERANDS, node.args, strict=False)), **node.kwargs}
        return {key: named[key] for key in sorted(named)}
    return dict(_leaves((*node.args, *sorted(node.kwargs.items())), ()))


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    if isinstance(value, dict):
        value = tuple(value.items())
    if not isinstance(value, (tuple, list)):
        yield path, value
        return
    for index, item in enumerate(value):
        yield from _leaves(item, (*path, index))


def _joined(found: Iterable[Starts]) -> Starts | None:
    """What several readings say together; None where they contradict each other."""
    joined: dict[int, fx.Node] = {}
    for starts in found:
        for number, node in starts.items():
            if joined.setdefault(number, node) is not node:
                return None
    return joined
