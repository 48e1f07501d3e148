"""Where the steps of a stack begin and end, told by comparing what the forward does in the gaps between its blocks.

Between two blocks the forward may do something for one of them alone: add a control residual, scale, take a mean. What
it does behind the last block is followed by the rest of the forward, so the last step ends where the same has been done
as between the blocks. What is done before the first block too, and not behind the last, goes with the block behind it.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import fx

from surgery.errors import RefusedError
from surgery.tracing.forms import ARITHMETIC, name_of
from surgery.tracing.gaps import Column, Gaps, Surroundings


@dataclass(frozen=True)
class Bounds:
    """`streams` are the numbers of the streams: what is made of another stream before every block is none.

    Step i begins in stream s with `columns[s][i]`, the last one ends with `exits[s]`. `owned[i]` goes with step i,
    though what it depends on does not tell: what is done before the call, and behind the last call up to the exits.
    """

    streams: tuple[int, ...]
    columns: tuple[Column, ...]
    owned: tuple[frozenset[fx.Node], ...]
    exits: tuple[fx.Node | None, ...]


def find_bounds(graph: fx.Graph, around: Surroundings) -> Bounds:
    """The bounds of the steps of a stack.

    Raises:
        RefusedError: with which block something goes can't be told.
    """
    everything = range(len(around.columns))
    if len(around.calls) > 1 and all(around.is_unchanged(stream) for stream in everything):
        return Bounds(tuple(everything), around.columns, (frozenset(),) * len(around.calls), _outputs_of_last(around))
    finder = _Finder(graph, around)
    sources = [finder.source_of(stream) for stream in everything]
    begins = [finder.begin_of(source) for source in sources]
    streams = tuple(s for s in everything if sources[s] == s and begins[s] not in begins[:s])
    columns = tuple(begins[s] for s in streams)
    exits = tuple(finder.exit_of(s, is_opened=begins[s] != around.columns[s]) for s in streams)
    return Bounds(streams, columns, finder.owned(columns, exits), exits)


def _outputs_of_last(around: Surroundings) -> tuple[fx.Node | None, ...]:
    return tuple(around.outputs[-1].get(number) for number in around.continued)


class _Finder:
    """The bounds of one stream after the other."""

    def __init__(self, graph: fx.Graph, around: Surroundings) -> None:
        self.around = around
        self.gaps = Gaps(graph, around)
        self.behind = len(around.calls)  # the gap behind the last block

    def forms_between(self, stream: int) -> dict[int, int]:
        """For every gap between two blocks in which something is done to a stream, in which form."""
        column = self.around.columns[stream]
        forms = {gap: self.gaps.form(gap, self.gaps.labels(gap), column[gap]) for gap in self.gaps.between}
        return {gap: form for gap, form in forms.items() if form is not None}

    def source_of(self, stream: int) -> int:
        """The stream that this one is made of in the same way before every block; itself where there is none."""
        if not self.gaps.between:
            return stream
        for other, column in enumerate(self.around.columns):
            pairs = enumerate(zip(column, self.around.columns[stream], strict=True))
            forms = {self.gaps.form(gap, {start: "start"}, end) for gap, (start, end) in pairs}
            if len(forms) == 1 and None not in forms:
                return self.source_of(other)
        return stream

    def begin_of(self, stream: int) -> Column:
        """What enters the blocks; where something is done to that before each of them, for it alone, what is put in."""
        column, number = self.around.columns[stream], self.around.continued[stream]
        starts = self.starts_of(stream)
        if not starts or any(number not in outputs for outputs in self.around.outputs[:-1]):
            return column
        if len(starts) > 1:
            self.refuse(f"`{column[0]}` before the first block is the stream and more")
        if self.ends_of(stream):
            if self.is_shared(stream, starts[0]):
                return column
            self.refuse(f"the same is done before the first block (`{column[0]}`) and behind the last")
        return (starts[0], *(outputs[number] for outputs in self.around.outputs[:-1]))

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

    def is_shared(self, stream: int, start: fx.Node) -> bool:
        """Whether what is done before the first block is done with the same things before the second."""
        first, second = self.around.columns[stream][:2]
        before = self.gaps.own_of(0, self.gaps.labels_before(stream, start), first)
        return before == self.gaps.own_of(1, self.gaps.labels(1), second)

    def ends_of(self, stream: int) -> list[fx.Node]:
        """The nodes behind the last block with which the same has been done as between the blocks."""
        return self.gaps.alike(self.behind, self.gaps.labels(self.behind), self.forms_between(stream).values())

    def exit_of(self, stream: int, *, is_opened: bool) -> fx.Node | None:
        """The end of the last step in a stream; None where the last block does not return it."""
        start = self.around.outputs[-1].get(self.around.continued[stream])
        ends = [] if is_opened else self.ends_of(stream)
        if len(ends) > 1:
            self.refuse(f"what is done between the blocks is done twice behind the last (`{ends[0]}`, `{ends[1]}`)")
        if ends:
            self.refuse_other_number(stream, ends[0])
            return ends[0]
        if start is None or not isinstance(start.meta["value"], torch.Tensor):
            return None
        if not is_opened:
            self.refuse_likeness(stream, start)
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

    def refuse_likeness(self, stream: int, start: fx.Node) -> None:
        """Refuse what is done behind the last block if it is nearly what is done between the blocks.

        Where there is one block only, nothing tells whether what is added to what it returns is its own.
        """
        ways = [(gap, self.way_between(stream, gap)) for gap in self.gaps.between]
        names = {name_of(node) for gap, way in ways for node in self.gaps.joins(gap, way)}
        for node in self.first_joins(start):
            if name_of(node) in names:
                self.refuse(f"`{node}` behind the last block is nearly what is done between the blocks")
            if not ways and name_of(node) in ARITHMETIC and len(node.all_input_nodes) > 1:
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
        gaps = [gap for gap, form in self.forms_between(stream).items()]
        between = {self.numbers_of(gap, self.around.columns[stream][gap]) for gap in gaps}
        if len(gaps) > 1 and len(between) == 1 and self.numbers_of(self.behind, end) not in between:
            self.refuse(f"`{end}` behind the last block takes another number than what is done between the blocks")

    def numbers_of(self, gap: int, end: fx.Node) -> frozenset[Hashable]:
        own = self.gaps.own_of(gap, self.gaps.labels(gap), end)
        return frozenset(item for item in own if not isinstance(item, fx.Node))

    def way_between(self, stream: int, gap: int) -> list[fx.Node]:
        return self.gaps.way(gap, self.gaps.labels(gap), {self.around.columns[stream][gap]})

    def refuse(self, fact: str) -> NoReturn:
        raise RefusedError(f"{self.around.stack}: {fact}; with which block it goes can't be told")
