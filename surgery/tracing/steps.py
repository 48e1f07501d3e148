"""A traced forward, read as stacks: which nodes are the step of which block, and which streams flow between blocks.

The *step* of block i is what happens from its stream inputs to those of block i+1: the call of the block, and the
operations around it that the forward does for it alone: those that lead into it (joining a text of its own, say), and
those that lead out of it (adding a control residual). Where the one step ends and the next begins is read off the code
of the forward (see `turns.py`, `bounds.py`). Everything else that a block is given is context, and stays with the block
wherever it runs.
"""

import inspect
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from surgery.errors import RefusedError
from surgery.tracing.bounds import find_bounds
from surgery.tracing.gaps import Surroundings


@dataclass(frozen=True)
class Stream:
    """A residual tensor that flows from block to block.

    `parameter` is the name that the blocks' forward gives it; `output` the index among a block's outputs (None where
    a block returns a single tensor).
    """

    parameter: str
    output: int | None


@dataclass(frozen=True)
class StackSteps:
    """The steps of one stack.

    `calls[i]` is the call of block i; `entries[i][s]` the node that enters step i as stream s; `exits[s]` what stream s
    is after the last step, None where the last block does not return it; `owned[i]` what goes with step i beside what
    depends on its call and not on a later one. `between` are the other stacks whose blocks run in these steps.
    """

    name: str
    calls: tuple[fx.Node, ...]
    streams: tuple[Stream, ...]
    entries: tuple[tuple[fx.Node, ...], ...]
    exits: tuple[fx.Node | None, ...]
    owned: tuple[frozenset[fx.Node], ...]
    between: tuple[str, ...]

    def step_ends(self, index: int) -> tuple[fx.Node | None, ...]:
        """What the streams are after the step of block `index`."""
        return self.entries[index + 1] if index + 1 < len(self.entries) else self.exits


def find_stack_names(model: nn.Module) -> tuple[str, ...]:
    """The dotted names of all non-empty ModuleLists that are not inside another one, in the model's own order."""
    return tuple(_find_stacks(model, "", set()))


def _find_stacks(module: nn.Module, path: str, seen: set[nn.Module]) -> Iterator[str]:
    if module in seen:
        return
    seen.add(module)
    if isinstance(module, nn.ModuleList) and len(module):
        yield path
        return
    for name, child in module.named_children():
        yield from _find_stacks(child, f"{path}.{name}" if path else name, seen)


def owners_of(stacks: Iterable[str]) -> frozenset[str]:
    """The dotted names of all submodules in which these stacks are, at any depth."""
    parts = [stack.split(".") for stack in stacks]
    return frozenset(".".join(path[:depth]) for path in parts for depth in range(1, len(path)))


def find_inner_stacks(model: nn.Module) -> tuple[str, ...]:
    """The stacks that a submodule may run in its own forward: two blocks or more of one class that is not torch's."""
    return tuple(name for name in find_stack_names(model) if "." in name and _is_of_one_class(model, name))


def _is_of_one_class(model: nn.Module, stack: str) -> bool:
    blocks = list(model.get_submodule(stack).children())
    return len(blocks) > 1 and len({type(block) for block in blocks}) == 1 and not _is_of_torch(blocks[0])


def _is_of_torch(block: nn.Module) -> bool:
    return type(block).__module__.startswith("torch.")


def block_calls(graph: fx.Graph, stack: str) -> list[tuple[int, fx.Node]]:
    """The calls of the blocks of a stack, each with the block's index, in the order of the forward."""
    calls: list[tuple[int, fx.Node]] = []
    for node in graph.nodes:
        if node.op != "call_module":
            continue
        prefix, _, last = node.target.rpartition(".")
        if prefix == stack and last.isdigit():
            calls.append((int(last), node))
    return calls


def blocks_read(graph: fx.Graph, stack: str) -> tuple[int, ...]:
    """The blocks of a stack of which the forward uses a part, a module or a tensor, beside calling the block."""
    found = set()
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr") and node.target.startswith(f"{stack}."):
            index, _, part = node.target.removeprefix(f"{stack}.").partition(".")
            found |= {int(index)} if part and index.isdigit() else set()
    return tuple(sorted(found))


def read_steps(graph: fx.Graph, model: nn.Module, stack: str, num_blocks: int) -> StackSteps | None:
    """The steps of a stack of `num_blocks` blocks, or None where the forward does not run them in order.

    Raises:
        RefusedError: it runs them in order, but in a way that can't be taken apart; the text says which.
    """
    found = block_calls(graph, stack)
    indices = [index for index, _ in found]
    for index in indices:
        if indices.count(index) > 1:
            raise RefusedError(f"{stack}[{index}] is called more than once in the model's own forward")
    if indices != list(range(num_blocks)):
        return None
    calls = tuple(node for _, node in found)
    arguments = [bind_arguments(model, call) for call in calls]
    depths = _depths(graph, calls)
    streams = _find_streams(calls, arguments, depths)
    outputs = tuple(_outputs_in_use(call) for call in calls)
    columns = tuple(tuple(bound[stream.parameter] for bound in arguments) for stream in streams)
    between = _stacks_between(graph, model, stack, depths, last=num_blocks - 1)
    around = Surroundings(stack, calls, outputs, tuple(stream.output for stream in streams), columns, depths, between)
    bounds = find_bounds(graph, around)
    if not bounds.streams:
        raise RefusedError(f"no tensor goes on from each block of {stack} to the next, as it is in a transformer")
    for number, column, end in zip(bounds.streams, bounds.columns, bounds.exits, strict=True):
        _refuse_other_shapes(stack, streams[number].parameter, (*column, end))
    _refuse_others_before(graph, stack, calls, between, bounds.owned)
    entries = tuple(zip(*bounds.columns, strict=True))
    names = tuple(streams[s] for s in bounds.streams)
    return StackSteps(stack, calls, names, entries, bounds.exits, bounds.owned, between)


def _refuse_other_shapes(stack: str, stream: str, states: Sequence[fx.Node | None]) -> None:
    """Refuse a stack whose blocks change the shape of a stream (of pictures in a U-Net): none can take another's."""
    values = [None if state is None else state.meta.get("value") for state in states]
    shapes = {tuple(value.shape): None for value in values if isinstance(value, torch.Tensor)}
    if len(shapes) > 1:
        first, second, *_ = ("x".join(map(str, shape)) for shape in shapes)
        raise RefusedError(f"its blocks change the shape of {stream}, from {first} to {second} in {stack}")


def bind_arguments(model: nn.Module, call: fx.Node) -> dict[str, Any]:
    """The arguments of a block's call by the names of its forward's parameters, or those that a `**rest` takes."""
    block = model.get_submodule(str(call.target))
    signature = inspect.signature(inspect.unwrap(type(block).forward))
    bound = signature.bind(None, *call.args, **call.kwargs)
    found: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            found.update({f"{name}[{position}]": item for position, item in enumerate(value)})
        else:
            found[name] = value
    return found


def _depths(graph: fx.Graph, calls: Sequence[fx.Node]) -> dict[fx.Node, int]:
    """For every node, the highest index of a block of the stack that it depends on; -1 for none."""
    index_of = {call: index for index, call in enumerate(calls)}
    depths: dict[fx.Node, int] = {}
    for node in graph.nodes:
        above = max((depths[used] for used in node.all_input_nodes), default=-1)
        depths[node] = max(above, index_of.get(node, -1))
    return depths


def outputs_of(call: fx.Node) -> list[tuple[int | None, Any]]:
    """The outputs of a block by index, with their example values; a single tensor has index None."""
    value = call.meta["value"]
    return list(enumerate(value)) if isinstance(value, (tuple, list)) else [(None, value)]


def _outputs_in_use(call: fx.Node) -> dict[int | None, fx.Node]:
    """The nodes that stand for the outputs of a block in the graph, where the forward uses them."""
    value = call.meta["value"]
    if not isinstance(value, (tuple, list)):
        return {None: call}
    found: dict[int | None, fx.Node] = {}
    for user in call.users:
        if user.target is operator.getitem and isinstance(user.args[1], int):
            found.setdefault(range(len(value))[user.args[1]], user)  # an index may count from the end
    return found


def _find_streams(
    calls: Sequence[fx.Node], arguments: Sequence[Mapping[str, Any]], depths: Mapping[fx.Node, int]
) -> tuple[Stream, ...]:
    if len(calls) == 1:
        return _streams_by_shape(calls[0], arguments[0])
    found: list[Stream] = []
    for name, value in arguments[1].items():
        if isinstance(value, fx.Node) and depths[value] == 0:
            found.append(Stream(name, _output_of(name, calls, arguments)))
    if not found:
        raise RefusedError(f"`{calls[1].target}` takes nothing from the block before it")
    for index, bound in enumerate(arguments):
        for stream in found:
            entry = bound.get(stream.parameter)
            if not isinstance(entry, fx.Node) or depths[entry] != index - 1:
                raise RefusedError(f"`{calls[index].target}` does not take {stream.parameter} from the block before it")
    return tuple(found)


def _output_of(name: str, calls: Sequence[fx.Node], arguments: Sequence[Mapping[str, Any]]) -> int | None:
    """The output that goes on as the argument `name`: a block is given it as it is, or it alone has the shape.

    None where none does, or several do.
    """
    outputs = [_outputs_in_use(call) for call in calls]
    entry = arguments[1][name]
    pairs = zip(arguments[1:], outputs, strict=False)
    as_it_is = {n for bound, nodes in pairs for n, node in nodes.items() if node is bound.get(name)}
    used = {n for n, node in outputs[0].items() if _depends(entry, node, calls[0])}
    alike = {n for n in used if _shape(outputs[0][n]) == _shape(entry)}
    candidates = as_it_is or (used if len(used) == 1 else alike)
    return candidates.pop() if len(candidates) == 1 else None


def _depends(value: fx.Node, start: fx.Node, call: fx.Node) -> bool:
    """Whether `value` depends on this output of `call`."""
    pending, seen = [value], set()
    while pending:
        node = pending.pop()
        if node is start:
            return True
        if node is not call and node not in seen:
            seen.add(node)
            pending.extend(node.all_input_nodes)
    return False


def _shape(node: fx.Node) -> Any:
    return getattr(node.meta["value"], "shape", None)


def _streams_by_shape(call: fx.Node, arguments: Mapping[str, Any]) -> tuple[Stream, ...]:
    """A stack of one block: an output belongs to the one argument that has its shape."""
    found: list[Stream] = []
    for output, value in outputs_of(call):
        alike = [
            name
            for name, argument in arguments.items()
            if isinstance(argument, fx.Node)
            and isinstance(value, torch.Tensor)
            and isinstance(argument.meta["value"], torch.Tensor)
            and argument.meta["value"].shape == value.shape
        ]
        if len(alike) == 1 and alike[0] in [stream.parameter for stream in found]:
            raise RefusedError(
                f"`{call.target}` is the only block of its stack, and several of its outputs have the shape of "
                f"{alike[0]}: which of them continues it can't be told"
            )
        if len(alike) == 1:
            found.append(Stream(alike[0], output))
        elif alike:
            raise RefusedError(
                f"`{call.target}` is the only block of its stack, and its output {output} has the shape of "
                f"{' and '.join(alike)}: which of them it continues can't be told"
            )
    return tuple(found)


def _stacks_between(
    graph: fx.Graph, model: nn.Module, stack: str, depths: Mapping[fx.Node, int], *, last: int
) -> tuple[str, ...]:
    """The other stacks of which a block depends on a block of this one, and not on its last."""
    return tuple(
        other
        for other in find_stack_names(model)
        if other != stack and any(0 <= depths[node] < last for _, node in block_calls(graph, other))
    )


def _refuse_others_before(
    graph: fx.Graph,
    stack: str,
    calls: Sequence[fx.Node],
    between: Iterable[str],
    owned: Sequence[frozenset[fx.Node]],
) -> None:
    """Refuse a stack that comes second in the turns that it shares: who leaves out its block means no other one."""
    order = {node: position for position, node in enumerate(graph.nodes)}
    for other in between:
        others = [node for _, node in block_calls(graph, other)]
        if any(
            node in own and order[node] < order[call] for call, own in zip(calls, owned, strict=True) for node in others
        ):
            raise RefusedError(
                f"the blocks of {other} run before those of {stack} in the same turns of the forward; edit {other}, "
                f"with whose blocks those of {stack} go"
            )


def iter_stacks(graph: fx.Graph, model: nn.Module) -> Iterator[tuple[str, int]]:
    """The names and lengths of the stacks whose blocks the forward calls, in the order of their first calls."""
    first: dict[str, int] = {}
    order = {node: position for position, node in enumerate(graph.nodes)}
    for name in find_stack_names(model):
        calls = block_calls(graph, name)
        if calls:
            first[name] = order[calls[0][1]]
    for name in sorted(first, key=first.__getitem__):
        stack = model.get_submodule(name)
        assert isinstance(stack, nn.ModuleList)
        yield name, len(stack)
