"""A copy of a module tree that shares the memory of every tensor with the original and nothing else.

Moving, casting, hooking or adapting the copy (`.to()`, LoRA layers, processors) leaves the original as it was.
"""

import copy
import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

HOOK_DICTS = (
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)

TensorMap = Callable[[torch.Tensor], torch.Tensor]


def share_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor object of its own over the same memory; subclasses (quantised weights, say) are shared as they are."""
    if type(tensor) is nn.Parameter:
        return nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
    return tensor.detach() if type(tensor) is torch.Tensor else tensor


def without_memory(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The same shape on the meta device; a floating-point tensor takes `dtype`, if one is given."""
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    on_meta = torch.empty_like(tensor.detach(), device="meta", dtype=wanted)
    return nn.Parameter(on_meta, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else on_meta


def clone_module(module: nn.Module, tensor_map: TensorMap = share_tensor) -> nn.Module:
    """A copy of the tree under `module`, each tensor passed through `tensor_map` once; ties between weights are kept.

    Lists and dicts of an instance are copied (PEFT keeps the state of adapters in some), other objects are shared; but
    functions that are bound to a module of the tree (accelerate puts such a `forward` on instances) are bound to its
    copy.
    """
    modules: dict[int, nn.Module] = {}
    tensors: dict[int, torch.Tensor | None] = {}

    def clone_tensor(tensor: torch.Tensor | None) -> torch.Tensor | None:
        if tensor is None:
            return None
        if id(tensor) not in tensors:
            tensors[id(tensor)] = tensor_map(tensor)
        return tensors[id(tensor)]

    for original in module.modules():
        twin = original.__class__.__new__(original.__class__)
        twin.__dict__ = dict(original.__dict__)
        modules[id(original)] = twin
    for original in module.modules():
        twin = modules[id(original)]
        state = twin.__dict__
        state.pop("_compiled_call_impl", None)
        for name, value in original.__dict__.items():
            if type(value) in (dict, list, set):
                state[name] = copy.copy(value)
        state["_parameters"] = {name: clone_tensor(value) for name, value in original._parameters.items()}
        state["_buffers"] = {name: clone_tensor(value) for name, value in original._buffers.items()}
        state["_modules"] = {
            name: None if child is None else modules[id(child)] for name, child in original._modules.items()
        }
        state["_non_persistent_buffers_set"] = set(original._non_persistent_buffers_set)
        for name in HOOK_DICTS:
            if name in state:
                state[name] = copy.copy(state[name])
        for name, value in original.__dict__.items():
            rebound = _rebind(value, modules)
            if rebound is not value:
                state[name] = rebound
    return modules[id(module)]


def _rebind(value: Any, modules: dict[int, nn.Module]) -> Any:
    """A bound method or partial of a module of the tree, for its copy; everything else as it is."""
    if isinstance(value, types.MethodType) and id(value.__self__) in modules:
        return types.MethodType(value.__func__, modules[id(value.__self__)])
    if isinstance(value, functools.partial) and any(id(arg) in modules for arg in value.args):
        args = tuple(modules.get(id(arg), arg) for arg in value.args)
        rebound = functools.partial(value.func, *args, **value.keywords)
        rebound.__dict__.update({name: _rebind(held, modules) for name, held in value.__dict__.items()})
        return rebound
    return value


def bare_clone(module: nn.Module, tensor_map: TensorMap = share_tensor) -> nn.Module:
    """A copy without hooks and without instance-level forwards: the classes' own code, for tracing and probing."""
    twin = clone_module(module, tensor_map)
    for part in twin.modules():
        part.__dict__.pop("forward", None)
        for name in HOOK_DICTS:
            if name in part.__dict__:
                part.__dict__[name] = type(part.__dict__[name])()
    return twin
