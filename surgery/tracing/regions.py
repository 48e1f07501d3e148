"""The stacks of a forward that can't be traced whole: each from its first block to its last, on one real call.

The forward runs as it is, with a stand-in for every block. A stand-in works out on the meta device what its block
would return, and returns zeros of those shapes (which take no memory). What the stand-ins are given says how the blocks
hang together: an argument is an output of an earlier block, or was made outside of the stack and is an input of the
region. An argument that was computed from an output of an earlier block is code between the blocks, and refused.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from surgery.errors import InternalsError, RefusedError, TraceError
from surgery.tracing.arguments import Container, flatten_call, is_number, parameters_of_module, unflatten_call
from surgery.tracing.memo import tensors_in
from surgery.tracing.stand_ins import StandIn
from surgery.tracing.steps import find_stack_names

READS_CONTENTS = frozenset(
    {"item", "tolist", "numpy", "equal", "allclose", "is_nonzero"}
    | {"__bool__", "__int__", "__float__", "__index__", "__contains__", "__array__"}
)


@dataclass(frozen=True)
class BlockOutput:
    """BlockOutput number `index` of block `block`; None is the number of a single tensor."""

    block: int
    index: int | None


@dataclass(frozen=True)
class Input:
    """Input number `index` of the region."""

    index: int


@dataclass(frozen=True)
class RegionCall:
    """How the forward calls one block: the structure of the call, and where the values of its slots come from."""

    structure: Container
    origins: tuple[BlockOutput | Input, ...]


@dataclass(frozen=True)
class Region:
    """One stack from its first block to its last.

    `graph` calls all blocks in their order; its placeholders are the inputs of the region and its output what the last
    block returns, in its structure.
    """

    stack: str
    graph: fx.Graph
    calls: tuple[RegionCall, ...]


def trace_regions(model: nn.Module, run: Callable[[Mapping[str, Sequence[StandIn]]], None]) -> tuple[Region, ...]:
    """The regions of the stacks that a forward runs; `run(stand_ins)` runs it on one call, with these blocks.

    `model` is the whole model on the meta device; it tells what the blocks would return.

    Raises:
        TraceError: the forward does more between two blocks of a stack than to hand on what they return, or it fails
            before its blocks have run.
    """
    learners = [_Learner(name, list(model.get_submodule(name).children())) for name in find_stack_names(model)]
    try:
        with torch.no_grad(), _Taint(learners):
            run({learner.stack: learner.stand_ins() for learner in learners})
    except (TraceError, RefusedError, InternalsError):
        raise
    except Exception as error:  # the forward's own code, on zeros: what it does after its last block is of no interest
        if not all(learner.is_complete for learner in learners):
            reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
            raise TraceError(f"it fails before its blocks have run: {type(error).__name__}: {reason}") from error
    return tuple(learner.region() for learner in learners if learner.is_complete)


class _Learner:
    """What is known of one stack while its forward runs."""

    def __init__(self, stack: str, blocks: list[nn.Module]) -> None:
        self.stack = stack
        self.blocks = blocks
        self.graph = fx.Graph()
        self.calls: list[RegionCall] = []
        self.inputs: list[tuple[str, Any]] = []
        self.placeholders: list[fx.Node] = []
        self.outputs: dict[int, tuple[BlockOutput, torch.Tensor, fx.Node]] = {}
        self.derived: dict[int, torch.Tensor] = {}
        self.result: Any = None

    @property
    def is_complete(self) -> bool:
        return len(self.calls) == len(self.blocks)

    def stand_ins(self) -> list[StandIn]:
        return [
            StandIn(f"{self.stack}.{index}", functools.partial(self.run, index)) for index in range(len(self.blocks))
        ]

    def run(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of a block: noted, and answered with zeros of the right shapes."""
        if index != len(self.calls):
            raise TraceError(f"it does not run the blocks of {self.stack} in their order, each once")
        call = flatten_call(args, kwargs, parameters_of_module(self.blocks[index]))
        origins = tuple(self.origin(index, name, value) for name, value in zip(call.names, call.inputs, strict=True))
        meta_args, meta_kwargs = unflatten_call(call.structure, [_on_meta(value) for value in call.inputs])
        returned = self.blocks[index](*meta_args, **meta_kwargs)
        given = [self.placeholders[o.index] if isinstance(o, Input) else self.node_of(o) for o in origins]
        node = self.graph.call_module(f"{self.stack}.{index}", *unflatten_call(call.structure, given))
        node.meta["value"] = returned
        self.result, zeros = self.record(index, node, returned, _device_of(call.inputs))
        self.calls.append(RegionCall(call.structure, origins))
        return zeros

    def origin(self, index: int, name: str, value: Any) -> BlockOutput | Input:
        """Where the value of one argument of a block comes from."""
        if id(value) in self.derived:
            raise TraceError(
                f"between {self.stack}[{index - 1}] and [{index}] it computes {name} from what the blocks return"
            )
        if id(value) in self.outputs:
            return self.outputs[id(value)][0]
        for number, (other, known) in enumerate(self.inputs):
            is_alike = is_number(value) and other == name and type(known) is type(value)
            if known is value or (is_alike and known == value):
                return Input(number)
        self.inputs.append((name, value))
        self.placeholders.append(self.add_placeholder(f"{name}_{index}" if self.is_taken(name) else name, value))
        return Input(len(self.inputs) - 1)

    def is_taken(self, name: str) -> bool:
        return any(node.target == name for node in self.placeholders)

    def add_placeholder(self, name: str, value: Any) -> fx.Node:
        """A placeholder after the last one, before all calls."""
        last = self.placeholders[-1] if self.placeholders else None
        with self.graph.inserting_after(last):  # after None is at the start
            node = self.graph.placeholder(name)
        node.meta["value"] = _on_meta(value)
        return node

    def record(self, index: int, node: fx.Node, returned: Any, device: torch.device) -> tuple[Any, Any]:
        """The outputs of the call of a block, as nodes and as zeros, in the structure in which it returns them."""
        if isinstance(returned, torch.Tensor):
            return node, self.keep(BlockOutput(index, None), returned, node, device)
        if not isinstance(returned, (tuple, list)):
            raise TraceError(f"{self.stack}[{index}] returns a {type(returned).__name__}, no tensors")
        nodes, zeros = [], []
        for number, value in enumerate(returned):
            part = None
            if isinstance(value, torch.Tensor):
                part = self.graph.call_function(operator.getitem, (node, number))
                part.meta["value"] = value
            nodes.append(part)
            zeros.append(None if part is None else self.keep(BlockOutput(index, number), value, part, device))
        return type(returned)(nodes), type(returned)(zeros)

    def node_of(self, output: BlockOutput) -> fx.Node:
        return next(node for known, _, node in self.outputs.values() if known == output)

    def keep(self, output: BlockOutput, value: torch.Tensor, node: fx.Node, device: torch.device) -> torch.Tensor:
        """Zeros in the place of an output, remembered by identity."""
        zeros = torch.zeros((), dtype=value.dtype, device=device).expand(value.shape)
        self.outputs[id(zeros)] = (output, zeros, node)
        return zeros

    def region(self) -> Region:
        self.graph.output(self.result)
        self.graph.lint()
        return Region(self.stack, self.graph, tuple(self.calls))


class _Taint(TorchFunctionMode):
    """Finds, by identity, the tensors that are computed from what the stand-ins return."""

    def __init__(self, learners: Sequence[_Learner]) -> None:
        super().__init__()
        self.learners = learners

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [id(value) for value in tensors_in((args, kwargs))]
        for learner in self.learners:
            if learner.is_complete or not any(key in learner.outputs or key in learner.derived for key in given):
                continue
            name = getattr(func, "__name__", "")
            if name in READS_CONTENTS:
                raise TraceError(f"between the blocks of {learner.stack} it decides on what they return")
            is_in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
            changed = tensors_in([result, args[:1]] if is_in_place else [])
            made = [tensor for tensor in tensors_in(result) if id(tensor) not in learner.outputs]
            learner.derived.update((id(tensor), tensor) for tensor in (*changed, *made))
        return result


def _on_meta(value: Any) -> Any:
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if isinstance(value, torch.Tensor) else value


def _device_of(values: Sequence[Any]) -> torch.device:
    return next((value.device for value in values if isinstance(value, torch.Tensor)), torch.device("cpu"))
