"""A live model -> Anatomy. The forward is traced once on example inputs; nothing runs on real data."""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from surgery.anatomy.anatomy import Anatomy, BlockKind, Component, Stack, TokenOutput
from surgery.calls.example_inputs import example_call, failure_of_row
from surgery.calls.known_values import known_values
from surgery.errors import InputError, RefusedError, TraceError
from surgery.tracing.arguments import FlatCall, flatten_call, parameters_of
from surgery.tracing.clone import bare_clone, without_memory
from surgery.tracing.stack_code import use_of_numbers
from surgery.tracing.steps import (
    StackSteps,
    bind_arguments,
    blocks_read,
    find_inner_stacks,
    find_stack_names,
    iter_stacks,
    read_steps,
)
from surgery.tracing.tracer import trace_forward
from surgery.tracing.wrappers import innermost

TOKEN_NDIM = 3  # (batch, tokens, channels)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def read_anatomy(
    model: nn.Module, *, sizes: Mapping[str, int] | None = None, has_weights: bool = True, dtype: str | None = None
) -> Anatomy:
    """The anatomy of a transformer; `sizes` overrides the example sizes (see calls.example_inputs).

    A forward that can't be traced whole leaves the streams unknown until the model runs; `trace_failure` says why.

    Raises:
        InputError: the model has no stack of blocks.
    """
    if not find_stack_names(model):
        raise InputError(f"{type(model).__name__} has no stack of blocks (no ModuleList); it is no transformer")
    if type(model).__module__.startswith("transformers."):
        raise InputError(f"a {type(model).__name__} is no transformer of diffusers, and can't be edited")
    skeleton = _skeleton(model)
    example = example_call(skeleton, sizes=sizes)
    failure = failure_of_row(skeleton) if example is None else None
    stacks = _stacks_untraced(model)
    if example is not None:
        try:
            stacks = _stacks_traced(model, skeleton, example.kwargs)
        except (TraceError, RefusedError) as error:
            try:
                stacks = _stacks_on_contents(model, sizes)
            except (TraceError, RefusedError):
                failure = str(error)
    parameters = list(model.parameters())
    return Anatomy(
        class_name=type(model).__name__,
        stacks=stacks,
        num_parameters=sum(value.numel() for value in parameters),
        size_bytes=sum(value.numel() * value.element_size() for value in parameters),
        dtype=dtype or str(parameters[0].dtype).removeprefix("torch."),
        has_weights=has_weights,
        example=() if example is None or failure is not None else tuple(example.sizes.items()),
        trace_failure=failure,
        known_from="" if example is None else example.known_from,
    )


def _stacks_untraced(model: nn.Module) -> tuple[Stack, ...]:
    """Stacks of a class without example inputs: streams stay unknown until the model runs."""
    stacks = []
    for name in find_stack_names(model):
        blocks = list(model.get_submodule(name).children())
        kind_of, firsts = _group_by_kind(blocks)
        kinds = tuple(_describe_kind(blocks[first], _Probe(), ()) for first in firsts)
        stacks.append(Stack(name, kinds, kind_of, code_use=use_of_numbers(model, name)))
    return tuple(stacks)


def _skeleton(model: nn.Module) -> nn.Module:
    """The model without hooks, on the meta device and in one precision.

    No kernel is chosen there: a counter of FLOPs knows the operations of a forward, but not each device's fused ones;
    and it asks each tensor that needs a gradient for its function, which a weight that is looked at as another has not.
    """
    return bare_clone(model, lambda tensor: without_memory(tensor, torch.float32)).requires_grad_(requires_grad=False)


def _stacks_on_contents(model: nn.Module, sizes: Mapping[str, int] | None) -> tuple[Stack, ...]:
    """The same for a forward that decides on what is in its inputs."""
    skeleton = _skeleton(model)
    with known_values():
        example = example_call(skeleton, sizes=sizes)
        assert example is not None, "a call of the model is known"
        return _stacks_traced(model, skeleton, example.kwargs)


def _stacks_traced(model: nn.Module, skeleton: nn.Module, kwargs: Mapping[str, Any]) -> tuple[Stack, ...]:
    probes: dict[str, _Probe] = {}
    for name in find_stack_names(skeleton):
        blocks = list(skeleton.get_submodule(name).children())
        for first in _group_by_kind(blocks)[1]:
            probes[f"{name}.{first}"] = _Probe.attach(blocks[first])
    forward = innermost(type(model).forward)
    call = flatten_call((), kwargs, parameters_of(forward))
    with torch.no_grad():
        graph = trace_forward(lambda: skeleton, call, forward).graph
        called = [name for name, _ in iter_stacks(graph, skeleton)]
        inner = _graphs_of_inner(skeleton, call, forward, [n for n in find_inner_stacks(skeleton) if n not in called])
    graphs = {**dict.fromkeys(called, graph), **inner}
    stacks = {
        name: _describe_stack(graph, skeleton, name, list(model.get_submodule(name).children()), probes)
        for name, graph in graphs.items()
    }
    found = (replace(stack, is_inner=name in inner) for name, stack in stacks.items())
    return tuple(stack for stack in found if not stack.is_inner or stack.refusal is None)


def _graphs_of_inner(
    skeleton: nn.Module, call: FlatCall, forward: Callable[..., Any], names: Iterable[str]
) -> dict[str, fx.Graph]:
    """For each stack that a submodule runs in its own forward, a graph that looks into the submodule."""
    graphs = {}
    for name in names:
        with contextlib.suppress(TraceError, RefusedError):
            graphs[name] = trace_forward(lambda: skeleton, call, forward, stacks=[name]).graph
    return {name: graph for name, graph in graphs.items() if name in dict(iter_stacks(graph, skeleton))}


def _describe_stack(
    graph: fx.Graph, skeleton: nn.Module, name: str, blocks: list[nn.Module], probes: Mapping[str, "_Probe"]
) -> Stack:
    """What `graph`, traced on the skeleton, and the model's own blocks tell of one stack."""
    kind_of, firsts = _group_by_kind(blocks)
    refusal: str | None = None
    steps: StackSteps | None = None
    try:
        steps = read_steps(graph, skeleton, name, len(blocks))
        if steps is None:
            refusal = "the forward does not run its blocks in their order"
    except RefusedError as error:
        refusal = str(error)
    kinds = tuple(
        _describe_kind(blocks[first], probes[f"{name}.{first}"], _missing_streams(steps, first)) for first in firsts
    )
    streams = None if steps is None else tuple(dict.fromkeys(stream.parameter for stream in steps.streams))
    read = () if steps is None else blocks_read(graph, name)
    between = () if steps is None else steps.between
    return Stack(name, kinds, kind_of, streams, refusal, _own_context(steps, skeleton), read, between=between)


def _own_context(steps: StackSteps | None, model: nn.Module) -> tuple[str, ...]:
    """The arguments, streams apart, that are not the same for all blocks."""
    if steps is None:
        return ()
    streams = {stream.parameter for stream in steps.streams}
    given = [bind_arguments(model, call) for call in steps.calls]
    names = dict.fromkeys(name for bound in given for name in bound if name not in streams)
    return tuple(name for name in names if any(bound.get(name, name) != given[0].get(name, name) for bound in given))


def _missing_streams(steps: StackSteps | None, index: int) -> tuple[str, ...]:
    """The streams that block `index` takes and returns as None."""
    if steps is None:
        return ()
    value = steps.calls[index].meta["value"]
    outputs = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(stream.parameter for stream in steps.streams if outputs[stream.output or 0] is None)


def _group_by_kind(blocks: list[nn.Module]) -> tuple[tuple[int, ...], list[int]]:
    """For each block the index of its kind, and for each kind its first block."""
    signatures: dict[Any, int] = {}
    firsts: list[int] = []
    kind_of = []
    for index, block in enumerate(blocks):
        signature = (type(block), tuple((name, tuple(value.shape)) for name, value in block.named_parameters()))
        if signature not in signatures:
            signatures[signature] = len(firsts)
            firsts.append(index)
        kind_of.append(signatures[signature])
    return tuple(kind_of), firsts


def _describe_kind(block: nn.Module, probe: "_Probe", missing: tuple[str, ...]) -> BlockKind:
    parameters = list(block.parameters())
    return BlockKind(
        class_name=type(block).__name__,
        num_parameters=sum(value.numel() for value in parameters),
        size_bytes=sum(value.numel() * value.element_size() for value in parameters),
        flops=probe.flops,
        components=tuple(
            probe.describe(name, module) for name, module in block.named_modules() if name and _computes(module)
        ),
        missing_streams=missing,
    )


def _computes(module: nn.Module) -> bool:
    """Containers, dropout and identities are no components."""
    return not isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Dropout, nn.Identity))


class _Probe:
    """Watches one block while it is traced: FLOPs, and what goes in and out of its components."""

    def __init__(self) -> None:
        self.flops = 0
        self.seen: dict[str, Component] = {}
        self.was_run = False
        self.token_ndim = TOKEN_NDIM

    @classmethod
    def attach(cls, block: nn.Module) -> "_Probe":
        probe = cls()
        counter = FlopCounterMode(display=False)

        def start(module: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ARG001  (torch's signature)
            probe.token_ndim = _token_ndim([*args, *kwargs.values()])
            counter.__enter__()

        def stop(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001  (torch's signature)
            counter.__exit__(None, None, None)
            probe.flops = counter.get_total_flops()
            probe.was_run = True

        block.register_forward_pre_hook(start, with_kwargs=True)
        block.register_forward_hook(
            stop, always_call=True
        )  # a counter left open counts all that torch does from then on
        for name, module in block.named_modules():
            if name and _computes(module):
                probe.watch(name, module, counter)
        return probe

    def watch(self, name: str, component: nn.Module, counter: FlopCounterMode) -> None:
        """Record what goes in and out of one component, and its FLOPs."""
        before: list[int] = []

        def start(module: nn.Module, args: Any) -> None:  # noqa: ARG001  (torch's signature)
            before.append(counter.get_total_flops())

        def stop(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            parameters = list(inspect.signature(type(module).forward).parameters)[1:]
            named = {**dict(zip(parameters, args, strict=False)), **kwargs}
            seen = _describe_component(name, module, named, output, self.token_ndim)
            self.seen[name] = replace(seen, flops=counter.get_total_flops() - before.pop())

        component.register_forward_pre_hook(start)
        component.register_forward_hook(stop, with_kwargs=True)

    def describe(self, name: str, module: nn.Module) -> Component:
        if name in self.seen:
            return self.seen[name]
        reason = "the block never calls it as a module" if self.was_run else None
        return Component(name, type(module).__name__, _count(module), refusal=reason)


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def _token_ndim(values: Sequence[Any]) -> int:
    """The dimensions of a block's tokens: 2 where it takes (tokens, channels) first and nothing with a batch."""
    ndims = [value.ndim for value in values if isinstance(value, torch.Tensor) and value.is_floating_point()]
    return TOKEN_NDIM - 1 if ndims and ndims[0] == TOKEN_NDIM - 1 and TOKEN_NDIM not in ndims else TOKEN_NDIM


def _describe_component(
    name: str, module: nn.Module, named: Mapping[str, Any], output: Any, token_ndim: int
) -> Component:
    """Which outputs are token-shaped: (batch, tokens, channels) with the tokens of one of the arguments.

    What a convolution takes and gives is so, too, where it keeps the places: (batch, channels, places).
    """
    given = {key: value for key, value in named.items() if isinstance(value, torch.Tensor)}
    values = output if isinstance(output, (tuple, list)) else (output,)
    found: list[TokenOutput] = []
    for position, value in enumerate(values):
        if not isinstance(value, torch.Tensor):
            reason = f"its output {position} is no tensor"
            return Component(name, type(module).__name__, _count(module), refusal=reason)
        claimed = {known.stream for known in found}
        matching = (
            (key, _channel_dim(module, source, value, token_ndim))
            for key, source in given.items()
            if key not in claimed
        )
        stream, dim = next(((key, dim) for key, dim in matching if dim is not None), (None, None))
        if stream is None or dim is None:
            reason = f"its output {position} is not token-shaped ({_shape_text(value)})"
            return Component(name, type(module).__name__, _count(module), refusal=reason)
        found.append(TokenOutput(stream, given[stream].shape[dim], value.shape[dim], dim))
    return Component(
        name, type(module).__name__, _count(module), tuple(found), returns_tuple=isinstance(output, (tuple, list))
    )


def _channel_dim(module: nn.Module, source: torch.Tensor, output: torch.Tensor, token_ndim: int) -> int | None:
    """The dimension of the channels, if an output has the places of an argument; None if it has not."""
    if source.ndim != output.ndim:
        return None
    if _is_convolved(module, source):
        return 1 if _without(source, 1) == _without(output, 1) else None
    is_token_shaped = source.ndim == token_ndim and not isinstance(module, CONVOLUTIONS)
    return -1 if is_token_shaped and _without(source, -1) == _without(output, -1) else None


def _without(value: torch.Tensor, dim: int) -> list[int]:
    shape = list(value.shape)
    del shape[dim]
    return shape


def _is_convolved(module: nn.Module, source: torch.Tensor) -> bool:
    """Whether a module takes an argument as a convolution does, with the channels along dimension 1.

    Where (batch, n, n) could be both, it is tokens, unless the module is a convolution itself.
    """
    return any(
        source.ndim == len(inner.kernel_size) + 2
        and source.shape[1] == inner.in_channels
        and (inner is module or source.ndim > TOKEN_NDIM or source.shape[2] != inner.in_channels)
        for inner in module.modules()
        if isinstance(inner, CONVOLUTIONS)
    )


def _shape_text(value: torch.Tensor) -> str:
    """The shape of what is not (batch, tokens, channels), and what it may be."""
    shape = "x".join(str(size) for size in value.shape)
    if value.ndim > TOKEN_NDIM:
        return f"{shape}: a picture, or heads"
    return f"{shape}: a gate, a shift or an embedding" if value.ndim < TOKEN_NDIM else shape
