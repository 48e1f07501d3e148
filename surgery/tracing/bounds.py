"""Where the steps of a stack begin and end: told by the turns of its loop, else by comparing the gaps between blocks.

Where the forward has no loop, what it does in each gap is compared. Between two blocks it may do something for one of
them alone: add a control residual, scale, take a mean. What it does behind the last block is followed by the rest of
the forward, so the last step ends where the same has been done as between the blocks. What is done before the first
block too, and not behind the last, goes with the block behind it. What is neither is refused.
"""

from collections.abc import Hashable
from typing import NoReturn

import torch
from torch import fx

from surgery.errors import RefusedError
from surgery.tracing.forms import ARITHMETIC, name_of
from surgery.tracing.gaps import Bounds, Column, Gaps, Surroundings, numbers_in
from surgery.tracing.turns import bounds_of_turns


def find_bounds(graph: fx.Graph, around: Surroundings) -> Bounds:
    """The bounds of the steps of a stack.

    Raises:
        RefusedError: with which block something goes can't be told.
    """
    gaps = Gaps(graph, around)
    told = bounds_of_turns(gaps)
    if told is not None:
        return told
    if around.between:  # the gaps show which blocks stand in them, and not with which of this stack's they go
        names = " and ".join((around.stack, *around.between))
        raise RefusedError(f"the stacks {names} take turns in the forward; {around.stack} can't be edited")
    everything = range(len(around.columns))
    if len(around.calls) > 1 and all(around.is_unchanged(stream) for stream in everything):
        return Bounds(tuple(everything), around.columns, (frozenset(),) * len(around.calls), _outputs_of_last(around))
    finder = _Finder(gaps)
    streams: dict[Column, int] = {}
    for stream in everything:
        if not finder.is_made_of_others(stream):
            streams.setdefault(finder.begin_of(stream), stream)
    exits = tuple(finder.exit_of(s, is_opened=begin != around.columns[s]) for begin, s in streams.items())
    return Bounds(tuple(streams.values()), tuple(streams), finder.owned(tuple(streams), exits), exits)


def _outputs_of_last(around: Surroundings) -> tuple[fx.Node | None, ...]:
    return tuple(around.outputs[-1].get(number) for number in around.continued)


class _Finder:
    """The bounds of one stream after the other."""

    def __init__(self, gaps: Gaps) -> None:
        self.gaps, self.around = gaps, gaps.around
        self.behind = len(gaps.around.calls)  # the gap behind the last block

    def forms_between(self, stream: int) -> dict[int, int]:
        """For every gap between two blocks in which something is done to a stream, in which form."""
        column = self.around.columns[stream]
        forms = {gap: self.gaps.form(gap, self.gaps.labels(gap), column[gap]) for gap in self.gaps.between}
        return {gap: form for gap, form in forms.items() if form is not None}

    def is_made_of_others(self, stream: int) -> bool:
        """Whether what enters the blocks is made of what enters them beside it, in one way before all of them."""
        if not self.gaps.between:
            return False
        others = [column for s, column in enumerate(self.around.columns) if s != stream]
        forms = {
            self.gaps.form(gap, {column[gap]: s for s, column in enumerate(others)}, entry)
            for gap, entry in enumerate(self.around.columns[stream])
        }
        return len(forms) == 1 and None not in forms

    def begin_of(self, stream: int) -> Column:
        """What enters the blocks; where something is done to that before each of them, for it alone, what is put in."""
        column, number = self.around.columns[stream], self.around.continued[stream]
        starts, forms = self.starts_of(stream), self.forms_between(stream)
        if len(set(forms.values())) > 1 or (forms and not starts and not self.ends_of(stream)):
            self.refuse(
                f"`{column[min(forms)]}` is not what is done before the first block, nor what is behind the last"
            )
        if not starts or any(number not in outputs for outputs in self.around.outputs[:-1]):
            return column
        if len(starts) > 1:
            self.refuse(f"`{column[0]}` is made before the first block of several things that may be the stream")
        ends = self.ends_of(stream)
        if not ends:
            return (starts[0], *(outputs[number] for outputs in self.around.outputs[:-1]))
        if not self.is_shared(stream, starts[0], ends[0]):
            self.refuse(f"the same is done before the first block (`{column[0]}`) and behind the last (`{ends[0]}`)")
        return column

    def starts_of(self, stream: int) -> list[fx.Node]:
        """The nodes to which the forward does before the first block what it does between two."""
        column, forms = self.around.columns[stream], self.forms_between(stream)
        ways = [self.way_between(stream, gap) for gap in forms]
        near, made_of = {column[0]}, set[fx.Node]()
        for _ in range(max(map(len, ways), default=0)):
            near = {used for node in near for used in node.all_input_nodes}
            made_of |= near
        return [
            node
            for node in made_of
            if self.gaps.form(0, self.gaps.labels_before(stream, node), column[0]) in forms.values()
        ]

    def is_shared(self, stream: int, start: fx.Node, end: fx.Node) -> bool:
        """Whether what is done before the first block is done with the same things before the second and at the end."""
        first, second = self.around.columns[stream][:2]
        before = self.gaps.own_of(0, self.gaps.labels_before(stream, start), first)
        return before == self.own_of(1, second) == self.own_of(self.behind, end)

    def ends_of(self, stream: int) -> list[fx.Node]:
        """The nodes behind the last block with which the same has been done as between the blocks."""
        return self.gaps.alike(self.behind, self.gaps.labels(self.behind), self.forms_between(stream).values())

    def exit_of(self, stream: int, *, is_opened: bool) -> fx.Node | None:
        """The end of the last step in a stream; None where the last block does not return it."""
        start = self.around.outputs[-1].get(self.around.continued[stream])
        ends = [] if is_opened else self.ends_of(stream)
        if len(ends) > 1:
            self.refuse(f"what is done between two blocks is done twice behind the last (`{ends[0]}`, `{ends[1]}`)")
        if ends:
            self.refuse_other_number(stream, ends[0])
            return ends[0]
        if start is None or not isinstance(start.meta["value"], torch.Tensor):
            return None
        if not is_opened:
            self.refuse_only_block(start)
        return start

    def owned(self, columns: tuple[Column, ...], exits: tuple[fx.Node | None, ...]) -> tuple[frozenset[fx.Node], ...]:
        """What leads from the begins of the steps to the calls, and from the last call to the exits."""
        found = []
        for gap in range(self.behind):
            begins = {column[gap] for column in columns}
            found.append(frozenset(self.gaps.way(gap, begins, {column[gap] for column in self.around.columns})))
        ends = {end for end in exits if end is not None}
        found[-1] = found[-1].union(self.gaps.way(self.behind, self.around.calls[-1:], ends))
        return tuple(found)

    def refuse_only_block(self, start: fx.Node) -> None:
        """Where there is one block only, nothing tells whether what is added to what it returns is its own."""
        for node in () if self.gaps.between else self.first_joins(start):
            if name_of(node) in ARITHMETIC and len(node.all_input_nodes) > 1:
                self.refuse(f"`{node}` follows the only block")

    def first_joins(self, start: fx.Node) -> list[fx.Node]:
        """The first operations behind the last block that join a stream with anything else."""
        pending, found = [start], []
        while pending:
            users = [user for user in pending.pop().users if user.op in ("call_function", "call_method")]
            joins = self.gaps.joins(self.behind, users)
            found += joins
            pending += [
                user for user in users if user not in joins and isinstance(user.meta.get("value"), torch.Tensor)
            ]
        return found

    def refuse_other_number(self, stream: int, end: fx.Node) -> None:
        """Refuse if the streams are scaled by one number between all blocks, and by another behind the last."""
        gaps = self.forms_between(stream).keys()
        between = {numbers_in(self.way_between(stream, gap)) for gap in gaps}
        behind = numbers_in(self.gaps.way(self.behind, self.gaps.labels(self.behind), {end}))
        if len(gaps) > 1 and len(between) == 1 and behind not in between:
            self.refuse(f"`{end}` behind the last block is done between all others with another number")

    def own_of(self, gap: int, end: fx.Node) -> frozenset[Hashable]:
        return self.gaps.own_of(gap, self.gaps.labels(gap), end)

    def way_between(self, stream: int, gap: int) -> list[fx.Node]:
        return self.gaps.way(gap, self.gaps.labels(gap), {self.around.columns[stream][gap]})

    def refuse(self, fact: str) -> NoReturn:
        stack = self.around.stack
        raise RefusedError(f"{stack} can't be edited: {fact}, and with which block that goes can't be told")
