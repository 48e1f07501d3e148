"""Operations of torch that change a tensor in place: how they are told, and the copies that a graph has instead."""

import inspect
import operator
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


def is_name_in_place(name: str) -> bool:
    """Whether torch names an operation so that works in place."""
    return name.endswith("_") and not name.endswith("__")


def works_in_place(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of a function changes an argument, which the graph of its result does not show."""
    named = dict(kwargs)
    if isinstance(function, types.FunctionType):  # those of C take these options by name only
        named = inspect.signature(function).bind(*args, **kwargs).arguments
    name = getattr(function, "__name__", "").partition(".")[0]
    is_named_so = is_name_in_place(name) and getattr(operator, name, None) is not function  # and_, not_, ...
    return is_named_so or named.get("out") is not None or named.get("inplace") is True


def with_item(tensor: torch.Tensor, index: Any, update: Any) -> torch.Tensor:
    """A copy of `tensor` in which `copy[index] = update`."""
    changed = tensor.clone()
    changed[index] = update
    return changed


def changed_copy(tensor: torch.Tensor, method: str, *args: Any, **kwargs: Any) -> Any:
    """A copy of `tensor` on which a method that works in place was called."""
    return getattr(tensor.clone(), method)(*args, **kwargs)
