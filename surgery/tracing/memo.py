"""Blocks of one kind, on inputs of one shape, give outputs of one shape: while tracing, one of them is run for all.

Two blocks are of one kind if all their modules have the same classes, the same plain attributes, and tensors of the
same shapes. A block with hooks is always run; so is one whose output shares memory with its input.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

from surgery.torch_internals import has_forward_hooks, times_changed
from surgery.tracing.values import storage_of

PLAIN_TYPES = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size)


def is_block_path(path: str) -> bool:
    """Whether a module with this dotted name is numbered, as blocks are."""
    return path.rpartition(".")[2].isdigit()


class BlockMemo:
    """The results of the blocks that were run in one trace."""

    def __init__(self) -> None:
        self.results: dict[Hashable, Any] = {}

    def key(self, block: nn.Module, args: Any, kwargs: Any) -> Hashable | None:
        """What decides the shapes of a block's outputs; None where that can't be told."""
        try:
            return (_kind_of(block), _shape_of(args), _shape_of(kwargs))
        except _CannotTellError:
            return None

    def recall(self, key: Hashable | None) -> Any:
        """A fresh copy of the result that was kept under `key`; raises KeyError where there is none."""
        if key is None:
            raise KeyError(key)
        return map_tensors(_fresh, self.results[key])

    def keep(self, key: Hashable | None, result: Any, given: Any) -> None:
        """Keep the result of a block that was run on `given`."""
        inputs = {storage_of(tensor) for tensor in tensors_in(given)}
        if key is not None and not any(storage_of(tensor) in inputs for tensor in tensors_in(result)):
            self.results[key] = result


class _CannotTellError(Exception):
    """A value that is neither plain, nor a tensor, nor a container of such."""


def _kind_of(block: nn.Module) -> Hashable:
    modules = block.named_modules(remove_duplicate=False)
    return tuple((name, type(module), _state_of(name, module)) for name, module in modules)


def _state_of(name: str, module: nn.Module) -> Hashable:
    """The plain attributes of a module, and the shapes of the tensors that torch registers in it."""
    state = module.__dict__
    if "forward" in state or has_forward_hooks(module):
        raise _CannotTellError(name)
    found: list[Hashable] = []
    for key, value in state.items():
        if key[:1] != "_":
            found.append((key, _plain(value)))
        elif value and isinstance(value, dict):
            found += [(held, _shape_of(tensor)) for held, tensor in value.items() if isinstance(tensor, torch.Tensor)]
    return tuple(found)


def _plain(value: Any) -> Any:
    """An attribute as it counts for the kind: plain values as they are, other objects by their class."""
    kind = type(value)
    if isinstance(value, PLAIN_TYPES):
        return (kind, value)
    if isinstance(value, (tuple, list)):
        return (kind, tuple(_plain(item) for item in value))
    return kind


def _shape_of(value: Any) -> Hashable:
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.stride(), value.dtype, value.device, value.requires_grad)
    if isinstance(value, PLAIN_TYPES):
        return (type(value), value)
    if isinstance(value, (tuple, list)):
        return (type(value), tuple(_shape_of(item) for item in value))
    if isinstance(value, dict):
        return tuple((key, _shape_of(item)) for key, item in value.items())
    raise _CannotTellError(type(value).__name__)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in nested tuples, lists and dicts, in their order."""
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for item in items for tensor in tensors_in(item)]


def versions_of(value: Any) -> list[int]:
    """How often each tensor in nested containers was changed in place."""
    return [times_changed(tensor) for tensor in tensors_in(value)]


def _fresh(value: torch.Tensor) -> torch.Tensor:
    fresh = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    return fresh.requires_grad_(value.requires_grad)


def map_tensors(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The same nested tuples, lists and dicts, with every tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(map_tensors(change, item) for item in value)
    if type(value) is dict:
        return {key: map_tensors(change, item) for key, item in value.items()}
    return value
