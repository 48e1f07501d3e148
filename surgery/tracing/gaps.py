"""What a forward does between the blocks of a stack: gap i lies before block i, the last gap behind the last block."""

import operator
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from surgery.tracing.forms import Forms, is_arithmetic

READS = (operator.getitem, getattr)  # of a part or a size, which is nothing that is done to a stream

Column = tuple[fx.Node, ...]  # one stream: a node for every block
Labels = Mapping[fx.Node, Hashable]


@dataclass(frozen=True)
class Surroundings:
    """What the blocks of a stack are given and return.

    `outputs[i]` are the outputs of block i by number, and output `continued[s]` goes on as stream s; `columns[s][i]` is
    what enters block i as stream s; `depths` is the last block that a node depends on, -1 for none. `between` are the
    other stacks whose blocks depend on a block of this one, and not on its last.
    """

    stack: str
    calls: tuple[fx.Node, ...]
    outputs: tuple[Mapping[int | None, fx.Node], ...]
    continued: tuple[int | None, ...]
    columns: tuple[Column, ...]
    depths: Mapping[fx.Node, int]
    between: tuple[str, ...]

    def is_unchanged(self, stream: int) -> bool:
        """Whether the blocks are given an output of the block before them as it is."""
        number, entries = self.continued[stream], self.columns[stream][1:]
        return all(entry is outputs.get(number) for entry, outputs in zip(entries, self.outputs, strict=False))


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


class Gaps:
    """The nodes of each gap, and how they hang together."""

    def __init__(self, graph: fx.Graph, around: Surroundings) -> None:
        self.graph, self.around = graph, around
        self.nodes: list[list[fx.Node]] = [[] for _ in range(len(around.calls) + 1)]
        for node in graph.nodes:
            self.nodes[around.depths[node] + 1].append(node)
        self.between = range(1, len(around.calls))
        self.forms = Forms(self.nodes[0])

    def labels(self, gap: int) -> Labels:
        """What a gap behind a block starts from: what the block was given and has returned."""
        block = gap - 1
        entries = {column[block]: ("entry", stream) for stream, column in enumerate(self.around.columns)}
        outputs = {node: ("output", number) for number, node in self.around.outputs[block].items()}
        return {self.around.calls[block]: "block", **entries, **outputs}

    def labels_before(self, stream: int, start: fx.Node) -> Labels:
        """What the first gap starts from, if there `start` is of a stream what outputs of blocks are later on."""
        numbers = enumerate(self.around.continued)
        others = {self.around.columns[s][0]: ("output", n) for s, n in numbers if self.around.is_unchanged(s)}
        return {**others, start: ("output", self.around.continued[stream])}

    def reached(self, gap: int, starts: Collection[fx.Node]) -> list[fx.Node]:
        """The nodes of a gap that depend on these, in their order."""
        found = dict.fromkeys(starts)
        for node in self.nodes[gap]:
            if any(used in found for used in node.all_input_nodes):
                found[node] = None
        return list(found)[len(starts) :]

    def way(self, gap: int, starts: Collection[fx.Node], ends: Collection[fx.Node]) -> list[fx.Node]:
        """The nodes of a gap by which these ends are made of these starts."""
        wanted, found = set(ends), []
        for node in reversed(self.reached(gap, starts)):
            if node in wanted:
                found.append(node)
                wanted.update(node.all_input_nodes)
        return found

    def form(self, gap: int, labels: Labels, end: fx.Node) -> int | None:
        """The form in which `end` is made of labelled nodes; None for one of them, and where it is made of none."""
        return self.forms.read(self.reached(gap, labels), labels).get(end)

    def alike(self, gap: int, labels: Labels, forms: Collection[int]) -> list[fx.Node]:
        """The nodes of a gap that are made of labelled ones in one of these forms."""
        found = self.forms.read(self.reached(gap, labels), labels)
        return [node for node, form in found.items() if form in forms]

    def own_of(self, gap: int, starts: Collection[fx.Node], end: fx.Node) -> frozenset[Hashable]:
        """What `end` is made of beside these starts: the values of nodes, and the numbers of arithmetic."""
        inside = {*starts, *self.reached(gap, starts)}
        way = self.way(gap, starts, {end})
        nodes = {self.forms.values.get(node, node) for node in _others_in(way, inside)}
        return frozenset({("value", value) for value in nodes} | {("number", number) for number in numbers_in(way)})

    def joins(self, gap: int, nodes: Collection[fx.Node]) -> list[fx.Node]:
        """Those of the nodes of a gap behind a block that join tensors of the block with other nodes or numbers."""
        inside = {*self.labels(gap), *self.nodes[gap]}
        return [
            node for node in nodes if node.target not in READS and (_others_in([node], inside) or numbers_in([node]))
        ]


def _others_in(nodes: Iterable[fx.Node], inside: Collection[fx.Node]) -> set[fx.Node]:
    return {used for node in nodes for used in node.all_input_nodes if used not in inside}


def numbers_in(nodes: Iterable[fx.Node]) -> frozenset[float]:
    """The numbers that these nodes scale and shift tensors by."""
    arithmetic = [node for node in nodes if is_arithmetic(node) and isinstance(node.meta["value"], torch.Tensor)]
    operands = [operand for node in arithmetic for operand in (*node.args, *node.kwargs.values())]
    return frozenset(operand for operand in operands if isinstance(operand, (int, float)))
