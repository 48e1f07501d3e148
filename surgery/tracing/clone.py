"""A copy of a module tree that shares the memory of every tensor with the original and nothing else.

Moving, casting, hooking or adapting the copy (`.to()`, LoRA layers, processors) leaves the original as it was.
"""

import functools
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from surgery.torch_internals import drop_hooks_
from surgery.tracing.own_objects import OF_TORCH, OwnObjects

CONTAINERS = frozenset({dict, list, set, OrderedDict})
REGISTRIES = frozenset({dict, OrderedDict})
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


def clone_module(module: nn.Module, tensor_map: TensorMap = share_tensor) -> nn.Module:
    """A copy of the tree under `module`, each tensor passed through `tensor_map` once; ties between weights are kept.

    Lists and dicts of an instance are copied (PEFT keeps the state of adapters in some), other objects are shared; but
    functions that are bound to a module of the tree (accelerate puts such a `forward` on instances) are bound to its
    copy.
    """
    return _clone_tree(module, tensor_map)[id(module)]


def bare_clone(module: nn.Module, tensor_map: TensorMap = share_tensor) -> nn.Module:
    """A copy without hooks and without instance-level forwards: the classes' own code, for tracing and probing.

    Plain objects are copied as well, with all that they hold (see `OwnObjects`): what the code keeps from such a run in
    objects of its own (tables that it makes once) is not seen by the original.
    """
    twins = _clone_tree(module, tensor_map)
    own = OwnObjects(twins)
    for twin in twins.values():
        own.give_to_(twin)
    for twin in twins.values():
        twin.__dict__.pop("forward", None)
        drop_hooks_(twin)
    return twins[id(module)]


def _clone_tree(module: nn.Module, tensor_map: TensorMap) -> dict[int, nn.Module]:
    """The copies of all modules of a tree by the identity of the original."""
    originals = tuple(module.modules())
    twins = {id(original): original.__class__.__new__(original.__class__) for original in originals}
    copies: dict[int, Any] = dict(twins)
    for original in originals:
        twins[id(original)].__dict__ = _copied_state(original, copies, tensor_map)
    for twin in twins.values():
        _rebind_functions_(twin, copies)
    return twins


def _copied_state(module: nn.Module, copies: dict[int, Any], tensor_map: TensorMap) -> dict[str, Any]:
    """What the copy of a module holds: not what a compile in place left, and in torch's registries what is copied.

    A tensor in a registry is cloned where it is met first, and joins the copies.
    """
    state = nn.Module.__getstate__(module)
    for name, value in state.items():
        kind = type(value)
        if kind not in CONTAINERS:
            continue
        state[name] = copied = value.copy() if value else kind()
        if copied and kind in REGISTRIES and name in OF_TORCH:
            for key, held in value.items():
                if id(held) not in copies and isinstance(held, torch.Tensor):
                    copies[id(held)] = tensor_map(held)
                copied[key] = copies.get(id(held), held)
    return state


def _rebind_functions_(twin: nn.Module, copies: Mapping[int, Any]) -> None:
    """Bind what is bound to a module of the tree to its copy."""
    for name, value in twin.__dict__.items():
        if name not in OF_TORCH and isinstance(value, BINDS_MODULES):
            twin.__dict__[name] = _rebind(value, copies)


def _rebind(value: Any, modules: Mapping[int, Any]) -> Any:
    """A bound method or partial of a module of the tree, for its copy; everything else as it is."""
    if isinstance(value, types.MethodType) and id(value.__self__) in modules:
        return types.MethodType(value.__func__, modules[id(value.__self__)])
    if isinstance(value, functools.partial) and any(id(arg) in modules for arg in value.args):
        args = tuple(modules.get(id(arg), arg) for arg in value.args)
        rebound = functools.partial(value.func, *args, **value.keywords)
        rebound.__dict__.update({name: _rebind(held, modules) for name, held in value.__dict__.items()})
        return rebound
    return value
