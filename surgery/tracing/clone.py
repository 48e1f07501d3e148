"""A copy of a module tree that shares the memory of every tensor with the original and nothing else.

Moving, casting, hooking or adapting the copy (`.to()`, LoRA layers, processors) leaves the original as it was.
"""

import functools
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from surgery.torch_internals import drop_hooks_
from surgery.tracing.own_objects import OwnObjects

CONTAINERS = frozenset({dict, list, set, OrderedDict})
BINDS_MODULES = (types.MethodType, functools.partial)

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


def clone_module(
    module: nn.Module, tensor_map: TensorMap = share_tensor, *, has_own_objects: bool = False
) -> nn.Module:
    """A copy of the tree under `module`, each tensor passed through `tensor_map` once; ties between weights are kept.

    Lists and dicts of an instance are copied (PEFT keeps the state of adapters in some), other objects are shared; but
    functions that are bound to a module of the tree (accelerate puts such a `forward` on instances) are bound to its
    copy. With `has_own_objects` plain objects are copied as well, with all that they hold (see `OwnObjects`).
    """
    paths = list(module.named_modules(remove_duplicate=False))
    originals = {id(original): original for _, original in paths}
    twins = {key: _shallow_twin(original) for key, original in originals.items()}
    _clone_tensors(originals, twins, tensor_map)
    by_path: dict[str, nn.Module] = {}
    for path, original in paths:
        by_path[path] = twin = twins[id(original)]
        parent, _, name = path.rpartition(".")
        if path:
            by_path[parent].add_module(name, twin)
    for key, original in originals.items():
        for name, value in original.__dict__.items():
            if isinstance(value, BINDS_MODULES):
                twins[key].__dict__[name] = _rebind(value, twins)
    if has_own_objects:
        own = OwnObjects(twins)
        for twin in twins.values():
            own.give_to_(twin)
    return twins[id(module)]


def _shallow_twin(module: nn.Module) -> nn.Module:
    """An object of its own with the same state, but for what a compile in place left; its containers are its own."""
    twin = module.__class__.__new__(module.__class__)
    state = nn.Module.__getstate__(module)
    twin.__dict__ = {name: value.copy() if type(value) in CONTAINERS else value for name, value in state.items()}
    return twin


def _clone_tensors(originals: dict[int, nn.Module], twins: dict[int, nn.Module], tensor_map: TensorMap) -> None:
    """Give each twin the clones of its original's tensors, one clone for each tensor."""
    tensors: dict[int, torch.Tensor] = {}
    for key, original in originals.items():
        twin = twins[key]
        parameters = original.named_parameters(recurse=False, remove_duplicate=False)
        buffers = original.named_buffers(recurse=False, remove_duplicate=False)
        for name, tensor in (*parameters, *buffers):
            if id(tensor) not in tensors:
                tensors[id(tensor)] = tensor_map(tensor)
            setattr(twin, name, tensors[id(tensor)])


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
    """A copy without hooks and without instance-level forwards: the classes' own code, for tracing and probing.

    What its code keeps from such a run in objects of its own (tables that it makes once) is not seen by the original.
    """
    twin = clone_module(module, tensor_map, has_own_objects=True)
    for part in twin.modules():
        part.__dict__.pop("forward", None)
        drop_hooks_(part)
    return twin
