"""A forward that can't be traced whole: it runs as it is, and each of its stacks runs a rewritten graph.

In every call, each block but the last of a stack hands its streams through and notes what it is given besides; the last
one has then seen the context of all of them, and runs the stack's rewritten graph on what entered the first.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from surgery.errors import RefusedError, TraceError
from surgery.graph.graph_code import compile_graph, names_in_graph, readable_source
from surgery.graph.rewrite import rewrite_graph
from surgery.plan.plan import Plan
from surgery.plan.schedule import Schedule
from surgery.tracing.arguments import Container, FlatCall, flatten_call, is_number, parameters_of_module, unflatten_call
from surgery.tracing.guards import GuardViolation
from surgery.tracing.regions import BlockOutput, Input, Region, trace_regions
from surgery.tracing.stand_ins import StandIn, shadow_of
from surgery.tracing.steps import read_steps


@dataclass(frozen=True)
class RegionForward:
    """The rewritten graph of one stack, compiled: `forward(variant, *inputs)`.

    `parameters[i]` are the names of the parameters of block i; `handed[k]` the input of the region that output k of a
    block hands through, `structure` what a block returns: None for a single tensor, otherwise its type.
    """

    region: Region
    graph: fx.Graph
    forward: Callable[..., Any]
    parameters: tuple[tuple[str, ...], ...]
    handed: Mapping[int | None, int]
    returned: tuple[Any, ...]


@dataclass(frozen=True)
class PartialForward:
    """Stands where a compiled graph stands: called with a variant and the inputs of a call of one structure.

    `removed` are clones without memory of the blocks that the plan removes, by dotted name.
    """

    original_class: type[nn.Module]
    inner: Callable[..., Any]
    structure: Container
    regions: tuple[RegionForward, ...]
    removed: Mapping[str, nn.Module]

    def __call__(self, variant: nn.Module, *inputs: Any) -> Any:
        """Run the model's own forward, with its stacks' graphs in it."""
        if torch.is_grad_enabled() and getattr(variant, "gradient_checkpointing", False):
            raise RefusedError(
                f"{self.original_class.__name__} is traced in part only, and then gradient checkpointing is not "
                "possible; call disable_gradient_checkpointing() on the variant"
            )
        args, kwargs = unflatten_call(self.structure, inputs)
        stacks = {region.region.stack: _Conductor(region, variant, self.removed).stand_ins() for region in self.regions}
        return self.inner(shadow_of(variant, self.original_class, stacks), *args, **kwargs)

    @property
    def source(self) -> str:
        """The Python code of the stacks' graphs."""
        return "\n".join(
            f"# {part.region.stack}, from its first block to its last\n{readable_source(part.graph)}"
            for part in self.regions
        )

    @property
    def names(self) -> frozenset[str]:
        """The modules and weights that the stacks' graphs name."""
        return frozenset().union(*(names_in_graph(part.graph) for part in self.regions))


def trace_partial_forward(
    whole: nn.Module,
    variant: nn.Module,
    call: FlatCall,
    plan: Plan,
    removed: Mapping[str, nn.Module],
    *,
    original_class: type[nn.Module],
    inner: Callable[..., Any],
) -> PartialForward:
    """Trace and rewrite the stacks that the plan edits; `whole` is the complete original on the meta device.

    Raises:
        TraceError: a stack can't be traced from its first block to its last.
        RefusedError: the plan can't be done on a stack.
    """
    args, kwargs = unflatten_call(call.structure, call.inputs)

    def run(stand_ins: Mapping[str, Sequence[StandIn]]) -> None:
        for stack, blocks in stand_ins.items():
            present = variant.get_submodule(stack)
            for number, block in enumerate(blocks):
                _stand_for(block, present, number, removed)
        inner(shadow_of(variant, original_class, stand_ins), *args, **kwargs)

    traced = trace_regions(whole, run)
    regions = {region.stack: region for region in traced}
    edited = [schedule for schedule in plan.schedules if not schedule.is_identity]
    for schedule in edited:
        if schedule.stack not in regions:
            raise RefusedError(f"the forward does not run the blocks of {schedule.stack}; they can't be edited")
    compiled = tuple(_compile_region(regions[item.stack], whole, item) for item in edited)
    return PartialForward(original_class, inner, call.structure, compiled, removed)


def _compile_region(region: Region, model: nn.Module, schedule: Schedule) -> RegionForward:
    steps = read_steps(region.graph, model, region.stack, schedule.num_blocks)
    assert steps is not None, "the blocks of a region run in their order"
    placeholders = [node for node in region.graph.nodes if node.op == "placeholder"]
    handed = {
        stream.output: placeholders.index(entry) for stream, entry in zip(steps.streams, steps.entries[0], strict=True)
    }
    for number, call in enumerate(region.calls):
        for origin in call.origins:
            if isinstance(origin, BlockOutput) and origin.index not in handed:
                raise TraceError(
                    f"{region.stack}[{number}] is given what block {origin.block} returns beside its streams"
                )
    graph = rewrite_graph(region.graph, model, {region.stack: schedule})
    blocks = list(model.get_submodule(region.stack).children())
    parameters = tuple(parameters_of_module(block) for block in blocks)
    returned = tuple(call.meta["value"] for call in steps.calls)
    return RegionForward(region, graph, compile_graph(graph), parameters, handed, returned)


def _stand_for(stand_in: StandIn, present: nn.Module, number: int, removed: Mapping[str, nn.Module]) -> None:
    """Let a stand-in be read as the block of this number: the one that is there, or the clone of one that is not."""
    clone = removed.get(stand_in.__dict__["name"])
    stand_in.stand_for(getattr(present, str(number)) if clone is None else clone, is_removed=clone is not None)


class _Conductor:
    """One stack in one call: collects what its blocks are given, and answers for them."""

    def __init__(self, part: RegionForward, variant: nn.Module, removed: Mapping[str, nn.Module]) -> None:
        self.part = part
        self.variant = variant
        self.removed = removed
        self.values: dict[int, Any] = {}

    def stand_ins(self) -> list[StandIn]:
        present = self.variant.get_submodule(self.part.region.stack)
        found = []
        for index in range(len(self.part.region.calls)):
            stand_in = StandIn(f"{self.part.region.stack}.{index}", functools.partial(self.respond, index))
            _stand_for(stand_in, present, index, self.removed)
            found.append(stand_in)
        return found

    def respond(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What block `index` returns: its streams as they came; the last block returns what the whole stack does."""
        call = flatten_call(args, kwargs, self.part.parameters[index])
        expected = self.part.region.calls[index]
        if call.structure != expected.structure:
            raise GuardViolation(f"{self.part.region.stack}[{index}] is called in another way")
        for origin, value in zip(expected.origins, call.inputs, strict=True):
            self.note(origin, value)
        if index == len(self.part.region.calls) - 1:
            return self.part.forward(self.variant, *(self.values[number] for number in range(len(self.values))))
        return self.hand_through(self.part.returned[index])

    def note(self, origin: Input | BlockOutput, value: Any) -> None:
        """Keep an input of the region; refuse a value that is not what it was when the stack was traced."""
        number = origin.index if isinstance(origin, Input) else self.part.handed[origin.index]
        assert number is not None, "inputs are numbered"
        known = self.values.setdefault(number, value)
        if known is not value and not (is_number(value) and known == value):
            raise GuardViolation(f"the blocks of {self.part.region.stack} are given other values than when traced")

    def hand_through(self, returned: Any) -> Any:
        if isinstance(returned, torch.Tensor):
            return self.values[self.part.handed[None]]
        kept: Sequence[Any] = [
            self.values[self.part.handed[number]] if value is not None and number in self.part.handed else None
            for number, value in enumerate(returned)
        ]
        return type(returned)(kept)
