"""The graphs of a variant, by the keys of their calls; where there are too many, the least recently used make room."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch

from surgery.graph.graph_code import CompiledForward

MAX_BESIDE = 7  # two branches of guidance, each with a few lengths of texts
MAX_HELD_GRAPHS = 64  # more than the sizes that a model is usually run or trained in, by turns


@dataclass
class HeldGraph:
    """What was traced for the calls of one key; `config` is held because the key names it by its id.

    `beside` are those that were traced for the same key before, on other contents of tensors.
    """

    forward: CompiledForward
    config: Any
    last_use: int = 0
    beside: tuple[CompiledForward, ...] = ()


class HeldGraphs:
    """At most MAX_HELD_GRAPHS graphs. What makes room is traced again when it is called for."""

    def __init__(self) -> None:
        self.by_key: dict[Hashable, HeldGraph] = {}
        self.num_uses = 0

    def __len__(self) -> int:
        return len(self.by_key)

    def find(self, key: Hashable) -> tuple[CompiledForward, ...]:
        """What was traced for this key and is still held, the newest first."""
        held = self.by_key.get(key)
        if held is None:
            return ()
        if not torch.compiler.is_compiling():  # what is compiled would depend on the count
            self.note_use(held)
        return (held.forward, *held.beside)

    def keep(self, key: Hashable, graph: HeldGraph, *, reads_contents: bool = False) -> None:
        """Hold a graph, in the place of one of the same key or of the one that was not used for longest.

        One that hangs on contents is held beside the others of its key.
        """
        if reads_contents:
            graph.beside = self.find(key)[:MAX_BESIDE]
        self.note_use(graph)
        self.by_key[key] = graph
        while len(self.by_key) > MAX_HELD_GRAPHS:
            oldest = min(list(self.by_key.items()), key=lambda item: item[1].last_use)  # other threads may add some
            self.by_key.pop(oldest[0], None)

    def note_use(self, graph: HeldGraph) -> None:
        self.num_uses += 1
        graph.last_use = self.num_uses
