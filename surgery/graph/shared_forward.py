"""One call of a model under many plans, in a walk through their prefix tree: what plans have in common runs once.

The graphs of all plans are written into one, plan by plan in the order of the walk, so that each adds only what no
plan before it does (see `shared_graph.py`). Run in that order, a value is held until its last reader has run.
"""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from surgery.errors import TraceError
from surgery.graph.replace import Means, stand_in_for
from surgery.graph.rewrite import rewrite_into
from surgery.graph.shared_graph import SharedGraph
from surgery.graph.traces import edited_stacks
from surgery.graph.transformer_variants import TransformerVariants
from surgery.graph.variant import run_by
from surgery.plan.plan import Plan, ReplacedComponent
from surgery.plan.prefix_tree import prefix_tree, walks_through
from surgery.tracing.arguments import FlatCall, flatten_call, parameters_of
from surgery.tracing.clone import clone_module
from surgery.tracing.guards import GuardViolation, key_of_call, sizes_of_call
from surgery.tracing.memo import tensors_in
from surgery.tracing.steps import iter_stacks, read_steps
from surgery.tracing.tracer import CHANGES_INPUTS, ContentsNeededError, TracedForward
from surgery.tracing.wrappers import innermost

DEFAULT_MEMORY = 4 * 10**9  # bytes of states that are held at a time
UNBOUNDED = 2**31  # states: where a state is not known to take memory

OnOutput = Callable[[int, Any], None]


@dataclass(frozen=True)
class _Operation:
    """A node, what runs for it, the numbers of the plans whose output it is, and the nodes that nobody reads after."""

    node: fx.Node
    run: Callable[..., Any]
    ends: tuple[int, ...]
    last_read: tuple[fx.Node, ...]


@dataclass(frozen=True)
class _Walk:
    """A walk as operations in their order."""

    inputs: tuple[fx.Node, ...]
    operations: tuple[_Operation, ...]


class SharedForward:
    """The forwards of `plans` of one model; each gives what the variant of that plan alone gives, to the bit.

    `means` are the tensors of files of means by their digests. No more than `memory` bytes of states between blocks are
    held for what is yet to run; rather a beginning is run again.
    """

    def __init__(
        self,
        variants: TransformerVariants,
        plans: Sequence[Plan],
        means: Mapping[str | None, Means],
        *,
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        model = variants.model
        self.plans, self.means, self.memory = plans, means, memory
        self.anatomy, self.traces = variants.anatomy, variants.traces
        self.removed, self.objects = variants.intact, variants.objects
        self.parameters = parameters_of(innermost(type(model).forward))
        self.model = run_by(model, self)
        self.blocks: dict[str, nn.Module] = {}
        self.walks: dict[Hashable, tuple[_Walk, ...]] = {}
        self.on_output: OnOutput = _forget

    def run_all(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], on_output: OnOutput) -> None:
        """Run one call under every plan; `on_output` is given the number of a plan and its output, once each.

        Raises:
            TraceError: the forward can't be traced whole, or changes what blocks are given.
            RefusedError: a plan can't be done on its graph.
        """
        self.on_output = on_output
        try:
            self.model(*args, **kwargs)
        finally:
            self.on_output = _forget

    def run(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The same within the decorators of the model's own forward."""
        call = flatten_call(args, kwargs, self.parameters)
        done: set[int] = set()
        try:
            self.walk(model, call, done)
        except GuardViolation:
            self.walks.clear()
            try:
                self.walk(model, call, done)
            except GuardViolation as violation:
                raise TraceError(f"it decides on the contents of a tensor ({violation})") from violation

    def walk(self, model: nn.Module, call: FlatCall, done: set[int]) -> None:
        """Run all walks for a call; the outputs of plans that are `done` are not handed on again."""
        key = key_of_call(model, call, self.objects)
        found = self.walks.get(key) or self.walks.get((key, sizes_of_call(call))) or self.write(call, key)
        for walk in found:
            values: dict[fx.Node, Any] = dict(zip(walk.inputs, call.inputs, strict=True))
            read = values.__getitem__
            for operation in walk.operations:
                args = fx.node.map_arg(operation.node.args, read)
                kwargs = fx.node.map_arg(operation.node.kwargs, read)
                values[operation.node] = result = operation.run(*args, **kwargs)
                for number in operation.ends:
                    if number not in done:
                        done.add(number)
                        self.on_output(number, result)
                for node in operation.last_read:
                    del values[node]

    def write(self, call: FlatCall, key: Hashable) -> tuple[_Walk, ...]:
        """The walks for calls like this one, which are kept."""
        opened = {edited_stacks(plan) for plan in self.plans}
        traced = {stacks: self.trace(call, stacks) for stacks in opened}
        state = max(bytes_of_state(each) for each in traced.values())
        max_held = self.memory // state if state else UNBOUNDED
        found = []
        for walk in walks_through(prefix_tree(self.plans), max_held):
            graph = SharedGraph()
            ends: dict[fx.Node, tuple[int, ...]] = {}
            for number in walk.numbers:
                end = self.write_plan(graph, self.plans[number], traced)
                ends[end] = (*ends.get(end, ()), number)
            found.append(self.read(graph, ends))
        if len(found) > 1 or any(each.num_decisions or each.reads_contents for each in traced.values()):
            key = (key, sizes_of_call(call))
        self.walks[key] = tuple(found)
        return self.walks[key]

    def trace(self, call: FlatCall, stacks: tuple[str, ...]) -> TracedForward:
        """The forward of the model itself."""
        trace = functools.partial(self.traces.trace, self.model, self.removed, call, self.objects, stacks)
        try:
            traced = trace()
        except ContentsNeededError:
            traced = trace(reads_contents=True)
        changing = [str(node.target) for node in traced.graph.nodes if node.meta.get(CHANGES_INPUTS)]
        if changing:
            raise TraceError(f"{changing[0]} changes its inputs in place; nothing before it can be shared")
        return traced

    def write_plan(self, graph: SharedGraph, plan: Plan, traced: Mapping[tuple[str, ...], TracedForward]) -> fx.Node:
        """Write what a plan does into the graph; returns the node of its output."""
        own = traced[edited_stacks(plan)]
        graph.renamed = self.edited_blocks(plan)
        return rewrite_into(graph, own.graph, own.model, {each.stack: each for each in plan.schedules})

    def edited_blocks(self, plan: Plan) -> dict[str, str]:
        """The names of the blocks in which a plan replaces components, by what the graph calls them."""
        found: dict[str, list[ReplacedComponent]] = {}
        for replaced in plan.replacements:
            if replaced.index not in plan.schedule(replaced.stack).removed:
                found.setdefault(f"{replaced.stack}.{replaced.index}", []).append(replaced)
        names = {}
        for path, parts in found.items():
            said = (f"{part.component} = {part.kind} {part.values or ''}" for part in parts)
            names[path] = f"{path} with {', '.join(said)}"
            if names[path] not in self.blocks:
                self.blocks[names[path]] = self.edited_block(path, parts)
        return names

    def edited_block(self, path: str, parts: Sequence[ReplacedComponent]) -> nn.Module:
        """A block whose components are replaced; it shares its weights with the model's."""
        block = clone_module(self.model.get_submodule(path))
        for part in parts:
            stand_in = stand_in_for(part, self.model, self.anatomy, self.means.get(part.values, {}))
            parent, _, name = part.component.rpartition(".")
            block.get_submodule(parent).add_module(name, stand_in)
        return block

    def read(self, graph: SharedGraph, ends: Mapping[fx.Node, tuple[int, ...]]) -> _Walk:
        """The operations of a graph."""
        nodes = list(graph.nodes)
        last_read: dict[fx.Node, list[fx.Node]] = {}
        reader: dict[fx.Node, fx.Node] = {}
        for node in nodes:
            reader[node] = node
            reader.update(dict.fromkeys(node.all_input_nodes, node))
        for node, last in reader.items():
            last_read.setdefault(last, []).append(node)
        inputs = tuple(node for node in nodes if node.op == "placeholder")
        operations = [
            _Operation(node, self.runner(node), ends.get(node, ()), tuple(last_read.get(node, ())))
            for node in nodes
            if node.op != "placeholder"
        ]
        return _Walk(inputs, tuple(operations))

    def runner(self, node: fx.Node) -> Callable[..., Any]:
        """What runs for a node."""
        match node.op:
            case "call_module":
                name = str(node.target)
                return self.blocks[name] if name in self.blocks else self.model.get_submodule(name)
            case "call_method":
                return functools.partial(_call_method, str(node.target))
            case "get_attr":
                return functools.partial(_attribute, self.model, str(node.target))
        function: Callable[..., Any] = node.target  # type: ignore[assignment]  # of call_function
        return function


def bytes_of_state(traced: TracedForward) -> int:
    """The memory of what flows between the blocks of the first stack, all streams together; 0 where it is not read."""
    for name, num_blocks in iter_stacks(traced.graph, traced.model):
        steps = read_steps(traced.graph, traced.model, name, num_blocks)
        if steps is not None:
            streams = tensors_in([node.meta.get("value") for node in steps.entries[0]])
            return sum(stream.numel() * stream.element_size() for stream in streams)
    return 0


def _call_method(name: str, receiver: Any, *args: Any, **kwargs: Any) -> Any:
    return getattr(receiver, name)(*args, **kwargs)


def _attribute(model: nn.Module, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), model)


def _forget(number: int, output: Any) -> None:
    """No call runs."""
