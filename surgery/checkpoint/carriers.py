"""Which weights carry a constant, or a factor: found by trying, on a small real model of the class.

A component's output is made constant by a module inside it whose weight becomes zero and whose bias becomes the value:
the last linear layer of a feed-forward, the output projection of an attention, the value projection of one that has
none (rows of attention weights add up to 1). A block's update is scaled by a factor on the weight and bias of the
layer at its end, where there is one end. No table says which: each module is changed in turn, and the output looked at.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from surgery.anatomy.anatomy import Component
from surgery.errors import RefusedError

TOLERANCE = (
    1e-4  # relative, in float32: a value projection's mean over tokens is rounded; a wrong module is off by >0.1
)
PROBE_SCALE = 0.37

Call = tuple[tuple[Any, ...], dict[str, Any]]


def record_calls(model: nn.Module, paths: Sequence[str], kwargs: Mapping[str, Any]) -> dict[str, Call]:
    """What the submodules at `paths` are given in one forward of the model."""
    calls: dict[str, Call] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:  # noqa: ARG001  (torch's)
            calls[path] = copy.deepcopy((args, named))

        return hook

    handles = [model.get_submodule(path).register_forward_pre_hook(note(path), with_kwargs=True) for path in paths]
    with torch.no_grad():
        model(**kwargs)
    for handle in handles:
        handle.remove()
    return calls


def find_used_streams(block: nn.Module, known: Component, call: Call) -> tuple[str, ...]:
    """Those outputs of a component that its block makes use of: the last layer of SD3 drops one of its attention's."""
    before = _outputs(block, call)
    used = []
    for index, output in enumerate(known.outputs):

        def disturb(module: nn.Module, args: Any, result: Any, index: int = index) -> Any:  # noqa: ARG001  (torch's)
            if isinstance(result, torch.Tensor):
                return result + 1
            return tuple(value + 1 if at == index else value for at, value in enumerate(result))

        handle = block.get_submodule(known.name).register_forward_hook(disturb)
        after = _outputs(block, call)
        handle.remove()
        if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            used.append(output.stream)
    return tuple(used)


def find_constant_carriers(
    component: nn.Module, known: Component, call: Call, streams: Sequence[str], *, with_mean: bool
) -> dict[str, str]:
    """For each of these streams of a component's outputs the module within it that carries a constant; "" is itself.

    Raises:
        RefusedError: none does, or none has a bias and a mean is to be carried.
    """
    carriers: dict[str, str] = {}
    unbiased: dict[str, str] = {}
    generator = torch.Generator().manual_seed(0)
    for name, module in _leaves(component):
        has_bias = getattr(module, "bias", None) is not None
        channels = _out_channels(module)
        value = torch.randn(channels, generator=generator) if has_bias else torch.zeros(channels)
        with _constant(module, value):
            outputs = _outputs(component, call)
        for output, result in zip(known.outputs, outputs, strict=True):
            is_wanted = output.stream in streams and output.out_channels == len(value)
            if is_wanted and _is_close(result.movedim(output.channel_dim, -1), value.to(result)):
                (carriers if has_bias or not with_mean else unbiased)[output.stream] = name
    for stream in streams:
        if stream not in carriers:
            bare = unbiased.get(stream)
            if bare is not None:
                raise RefusedError(f"{bare or 'it'} at its end has no bias that could carry a mean")
            raise RefusedError("none of its layers alone can make its output constant")
    _refuse_unless_together(component, known, call, carriers)
    return carriers


def _refuse_unless_together(component: nn.Module, known: Component, call: Call, carriers: Mapping[str, str]) -> None:
    twin = copy.deepcopy(component)
    for name in set(carriers.values()):
        _zero_(twin.get_submodule(name))
    results = zip(known.outputs, _outputs(twin, call), strict=True)
    if any(bool(result.any()) for output, result in results if output.stream in carriers):
        raise RefusedError("its outputs can't all be made constant at once")


def find_scale_carriers(block: nn.Module, call: Call, ends: Sequence[str]) -> tuple[str, ...]:
    """The modules of a block whose weights and biases, times a, give x + a (f(x) - x) for every a.

    `ends` are modules known to end branches of the block: one layer alone is tried first, then all of these together.

    Raises:
        RefusedError: there are none: the branches of the block feed one another.
    """
    before = _outputs(block, call)
    entries = _entries(block, call)
    target = [x + PROBE_SCALE * (after - x) for x, after in zip(entries, before, strict=True)]
    for names in [(name,) for name, _ in _leaves(block)] + [tuple(ends)]:
        twin = copy.deepcopy(block)
        for name in names:
            _scale_(twin.get_submodule(name), PROBE_SCALE)
        if names and all(_is_close(a, b) for a, b in zip(_outputs(twin, call), target, strict=True)):
            return names
    raise RefusedError("one of its branches feeds another, so no factor on weights scales their sum")


def silence_block(block: nn.Module, call: Call, ends: Sequence[str]) -> tuple[str, ...]:
    """The modules that must be zero for a block to hand its streams through: `ends`, if that is so.

    Raises:
        RefusedError: it does more than add what these modules make.
    """
    twin = copy.deepcopy(block)
    for name in ends:
        _zero_(twin.get_submodule(name))
    if not all(torch.equal(a, b) for a, b in zip(_outputs(twin, call), _entries(block, call), strict=True)):
        raise RefusedError("it does more than add the outputs of its components")
    return tuple(ends)


def _entries(block: nn.Module, call: Call) -> list[torch.Tensor]:
    """For each output of a block the tensor that it adds to: what it returns when all that it computes is zero."""
    twin = copy.deepcopy(block)
    for _, module in _leaves(twin):
        _zero_(module)
    entries = _outputs(twin, call)
    given = [value for value in [*call[0], *call[1].values()] if isinstance(value, torch.Tensor)]
    if not all(any(x.shape == y.shape and torch.equal(x, y) for y in given) for x in entries):
        raise RefusedError("it does not add to its streams")
    return entries


def _leaves(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules with a weight of their own that a constant can replace: linear layers, convolutions, affine norms."""
    for name, part in module.named_modules():
        weight = getattr(part, "weight", None)
        if not isinstance(weight, torch.Tensor) or isinstance(part, nn.Embedding):
            continue
        if weight.ndim in (1, 2) or isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            yield name, part


def _out_channels(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, torch.Tensor), "a leaf has a weight"
    return int(weight.shape[0])


@contextmanager
def _constant(module: nn.Module, value: torch.Tensor) -> Iterator[None]:
    """The module with a weight of zero and `value` as its bias (if it has one), for a while."""
    saved = [parameter.detach().clone() for parameter in module.parameters(recurse=False)]
    with torch.no_grad():
        _zero_(module)
        if getattr(module, "bias", None) is not None:
            module.bias.copy_(value)  # type: ignore[operator]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in zip(module.parameters(recurse=False), saved, strict=True):
                parameter.copy_(before)


@torch.no_grad()
def _zero_(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.zero_()


@torch.no_grad()
def _scale_(module: nn.Module, factor: float) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.mul_(factor)


@torch.no_grad()
def _outputs(module: nn.Module, call: Call) -> list[torch.Tensor]:
    args, kwargs = copy.deepcopy(call)
    result = module(*args, **kwargs)
    values = result if isinstance(result, (tuple, list)) else (result,)
    return [value for value in values if isinstance(value, torch.Tensor)]


def _is_close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((actual - expected).norm() <= TOLERANCE * expected.expand_as(actual).norm())
