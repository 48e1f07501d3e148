"""A traced forward and schedules -> the rewritten graph.

The new graph is built on demand from the output backwards; only the region of each edited stack is laid out by its
schedule. A block's context (modulations, masks, rotary embeddings, whatever the forward computes for its number) is
copied with the block, wherever the schedule puts it.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from torch import fx, nn

from surgery.errors import RefusedError
from surgery.graph.combine import mean_of, scaled_update, sum_of_updates
from surgery.plan.schedule import Group, Item, Layer, Repetition, Schedule
from surgery.tracing.guards import expect
from surgery.tracing.steps import StackSteps, iter_stacks, read_steps
from surgery.tracing.tracer import CHANGES_INPUTS

Streams = tuple[fx.Node | None, ...]


@dataclass(frozen=True)
class _Owner:
    """The step of one block."""

    stack: str
    index: int


def rewrite_graph(graph: fx.Graph, model: nn.Module, schedules: Mapping[str, Schedule]) -> fx.Graph:
    """Lay out the blocks of each stack by its schedule; stacks without one, and all else, stay as they are.

    Raises:
        RefusedError: the forward does not run the stack's blocks in order, a long skip has nothing to read, or a block
            would run on what another has changed.
    """
    new = fx.Graph()
    rewrite_into(new, graph, model, schedules)
    new.lint()
    return new


def rewrite_into(new: fx.Graph, graph: fx.Graph, model: nn.Module, schedules: Mapping[str, Schedule]) -> fx.Node:
    """The same, as nodes of a graph that is there; returns the node of the output."""
    steps: list[tuple[StackSteps, Schedule]] = []
    called = dict(iter_stacks(graph, model))
    edited = {name: schedule for name, schedule in schedules.items() if not schedule.is_identity}
    for name in edited:
        if name not in called:
            raise RefusedError(f"the forward does not call the blocks of {name} itself; they can't be edited")
    for name in [name for name in called if name in edited]:
        found = read_steps(graph, model, name, called[name])
        if found is None:
            raise RefusedError(f"the forward does not run the blocks of {name} in their order; it can't be edited")
        steps.append((found, edited[name]))
    _refuse_taking_turns([stack for stack, _ in steps])
    return _Rewriter(new, graph, steps).run()


def _refuse_taking_turns(stacks: Sequence[StackSteps]) -> None:
    """The blocks of one stack that run in the steps of another go with these; they can't have an order of their own."""
    names = {stack.name for stack in stacks}
    for stack in stacks:
        for other in names.intersection(stack.between):
            raise RefusedError(f"the stacks {stack.name} and {other} take turns in the forward; edit one of them")


class _Rewriter:
    """One pass over one graph. `placed` maps nodes of the old graph to nodes of the new one."""

    def __init__(self, new: fx.Graph, old: fx.Graph, steps: Sequence[tuple[StackSteps, Schedule]]) -> None:
        self.old = old
        self.new = new
        self.steps = steps
        self.placed: dict[fx.Node, fx.Node] = {}
        self.ambiguous: set[fx.Node] = set()
        self.owners = _find_owners(old, [stack for stack, _ in steps])
        self.read_elsewhere = _find_read_elsewhere(old, self.owners, [stack for stack, _ in steps])
        self.checks = [node for node in old.nodes if node.target is expect]
        self.early = _find_early(old)

    def run(self) -> fx.Node:
        for node in self.old.nodes:
            if node.op == "placeholder":
                self.placed[node] = self.new.node_copy(node)
        for check in self.checks:
            if (
                check in self.early and self.owners[check] is None
            ):  # what does not hold is noticed before a block has run
                self.place(check, {}, None)
        for stack, schedule in self.steps:
            self.lay_out(stack, schedule)
        for check in self.checks:
            if check not in self.early and self.owners[check] is None:
                self.place(check, {}, None)
        return self.place(next(node for node in self.old.nodes if node.op == "output"), {}, None)

    def place(self, node: fx.Node, local: dict[fx.Node, fx.Node | None], step: _Owner | None) -> fx.Node:
        """The node of the new graph for `node`, whose inputs are placed first (on a stack of its own: graphs are deep).

        `local` holds what belongs to one execution of `step`, with its stream inputs given; what depends on no block is
        context, and placed once for all.
        """
        pending = [node]
        while pending:
            top = pending[-1]
            if self.is_known(top, local, step):
                pending.pop()
                continue
            owner = self.owners[top]
            if owner is not None and owner != step:
                raise RefusedError(_skip_connection_message(owner))
            scope = {} if owner is None else local
            missing = [used for used in top.all_input_nodes if not self.is_known(used, scope, owner)]
            if missing:
                pending.extend(reversed(missing))
                continue
            copied = self.new.node_copy(top, functools.partial(self.look_up, local=scope))
            (self.placed if owner is None else local)[top] = copied
            pending.pop()
        return self.look_up(node, local)

    def is_known(self, node: fx.Node, local: Mapping[fx.Node, fx.Node | None], step: _Owner | None) -> bool:
        """Whether a node has its place: what an earlier execution of the same step has left is not that of this one."""
        owner = self.owners[node]
        return node in local or (node in self.placed and (owner is None or owner != step))

    def look_up(self, node: fx.Node, local: Mapping[fx.Node, fx.Node | None]) -> fx.Node:
        found = local[node] if node in local else self.placed[node]
        assert found is not None, "run_layer refuses streams that are missing before they are looked up"
        return found

    def lay_out(self, stack: StackSteps, schedule: Schedule) -> None:
        streams: Streams = tuple(self.place(node, {}, None) for node in stack.entries[0])
        streams = self.run_items(stack, schedule.items, streams)
        for end, stream in zip(stack.exits, streams, strict=True):
            if end is not None and stream is not None:
                self.placed[end] = stream
            elif end is not None:
                raise RefusedError(f"the last layer of the schedule of {stack.name} does not return all streams")

    def run_items(self, stack: StackSteps, items: Sequence[Item], streams: Streams) -> Streams:
        for item in items:
            match item:
                case Layer():
                    streams = self.run_layer(stack, item, streams, leaves=True)
                case Group():
                    for _ in range(item.loops):
                        streams = self.run_group(stack, item, streams)
                case Repetition(inner, times):
                    for _ in range(times):
                        streams = self.run_items(stack, inner, streams)
                case _:
                    assert_never(item)
        return streams

    def run_layer(self, stack: StackSteps, layer: Layer, streams: Streams, *, leaves: bool = False) -> Streams:
        """One execution of a block: the new nodes of its step, from the streams that enter it.

        If it `leaves` anything, long skip connections may read it.
        """
        if None in streams:
            missing = stack.streams[streams.index(None)].parameter
            raise RefusedError(
                f"{stack.name}[{layer.index}] needs {missing}, which the layer before it does not return"
            )
        if stack.calls[layer.index].meta.get(CHANGES_INPUTS) and (layer.scale != 1.0 or not leaves):
            raise RefusedError(
                f"{stack.name}[{layer.index}] changes its inputs in place; it can't be scaled, nor run beside others"
            )
        step = _Owner(stack.name, layer.index)
        local: dict[fx.Node, fx.Node | None] = dict(zip(stack.entries[layer.index], streams, strict=True))
        for check in self.checks:
            if self.owners[check] == step:
                self.place(check, local, step)
        ends = stack.step_ends(layer.index)
        done = tuple(None if end is None else self.place(end, local, step) for end in ends)
        after = done if layer.scale == 1.0 else self.scale(layer, streams, done)
        if leaves:
            local.update(
                zip([end for end in ends if end is not None], [s for s in after if s is not None], strict=True)
            )
            self.keep_for_skips(stack, layer.index, local)
        return after

    def scale(self, layer: Layer, streams: Streams, done: Streams) -> Streams:
        return tuple(
            None if end is None else self.new.call_function(scaled_update, (before, end, layer.scale))
            for before, end in zip(streams, done, strict=True)
        )

    def keep_for_skips(self, stack: StackSteps, index: int, local: dict[fx.Node, fx.Node | None]) -> None:
        """Keep what a long skip connection reads of what a layer left, unless the layer runs more than once."""
        for node in self.read_elsewhere.get(_Owner(stack.name, index), ()):
            kept = self.place(node, local, _Owner(stack.name, index))
            if node in self.placed or node in self.ambiguous:
                self.ambiguous.add(node)
                self.placed.pop(node, None)
            else:
                self.placed[node] = kept

    def run_group(self, stack: StackSteps, group: Group, streams: Streams) -> Streams:
        """All members on the same streams; their outputs combined, stream by stream."""
        outputs = [self.run_layer(stack, layer, streams) for layer in group.layers]
        return tuple(
            self.combine(group, before, [output[position] for output in outputs])
            for position, before in enumerate(streams)
        )

    def combine(self, group: Group, before: fx.Node | None, members: list[fx.Node | None]) -> fx.Node | None:
        if None in members:
            return None
        if group.combine == "sum":
            return self.new.call_function(sum_of_updates, (before, *members))
        return self.new.call_function(mean_of, tuple(members))


def _find_early(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that depend on no module's result and no step: they can stand before all blocks."""
    early: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "call_module" and early.issuperset(node.all_input_nodes):
            early.add(node)
    return early


def _find_owners(graph: fx.Graph, stacks: Sequence[StackSteps]) -> dict[fx.Node, _Owner | None]:
    """For every node the step that it belongs to: that of the latest block it depends on, up to the stack's exits.

    What a step does before the call of its block belongs to it as well.
    """
    owners: dict[fx.Node, _Owner | None] = {}
    order = {node: position for position, node in enumerate(graph.nodes)}
    starts = {_Owner(stack.name, index): order[call] for stack in stacks for index, call in enumerate(stack.calls)}
    own = {
        node: _Owner(stack.name, index)
        for stack in stacks
        for index, call in enumerate(stack.calls)
        for node in (call, *stack.owned[index])
    }
    exits = {end for stack in stacks for end in stack.exits if end is not None}
    for node in graph.nodes:
        above = {owners[used] for used in node.all_input_nodes if used not in exits} | {own.get(node)}
        owners[node] = max((owner for owner in above if owner is not None), key=starts.__getitem__, default=None)
    return owners


def _find_read_elsewhere(
    graph: fx.Graph, owners: Mapping[fx.Node, _Owner | None], stacks: Sequence[StackSteps]
) -> dict[_Owner, list[fx.Node]]:
    """By step, the nodes that other steps read, apart from the streams on which the next one goes on."""
    streams = {
        (entry, _Owner(stack.name, index))
        for stack in stacks
        for index, entries in enumerate(stack.entries)
        for entry in entries
    }
    exits = {end for stack in stacks for end in stack.exits}
    found: dict[_Owner, list[fx.Node]] = {}
    for node in graph.nodes:
        owner = owners[node]
        readers = {owners[user] for user in node.users} - {owner}
        if owner is not None and node not in exits and any((node, reader) not in streams for reader in readers):
            found.setdefault(owner, []).append(node)
    return found


def _skip_connection_message(owner: _Owner) -> str:
    return (
        f"{owner.stack}[{owner.index}] feeds more than the next block (a long skip connection, say), and the plan "
        "drops it, moves it behind the place where it is needed, or runs it more than once; keep it in its place"
    )
