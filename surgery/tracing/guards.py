"""What a traced graph takes for granted, and the check that it still holds.

Two nets, so that a call never runs through the wrong graph:

* the *key* of a call (`key_of_call`) holds everything that is known before the call runs: the arguments that are
  given and which are None, their ranks, dtypes and devices, non-tensor values, training and gradient mode;
* a *check* (`expect`) stands in the graph wherever the forward turned a number into a Python decision (an `if` on a
  size, `int()`, the length of a tensor). A graph with such checks is also keyed by the exact sizes of its inputs, so
  that a check that fails is the exception and not the rule.
"""

from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

from surgery.tracing.arguments import FlatCall, is_number
from surgery.tracing.own_objects import state_of_objects


class GuardViolation(Exception):  # noqa: N818  (a signal within the package, no error of anybody)
    """A traced decision does not hold for this call; whoever runs the graph traces it again. Never reaches a user."""


def expect(actual: Any, decided: Any) -> None:
    """Raise GuardViolation unless `actual` is what the forward decided on when it was traced."""
    if actual != decided:
        raise GuardViolation(f"traced with {decided!r}, called with {actual!r}")


def key_of_model(model: nn.Module) -> Hashable:
    """What the state of the model itself decides: its public flags and numbers (training and checkpointing among
    them), which config object it has, the dtype and device of its weights."""
    first = next(model.parameters(), None)
    own = tuple((name, value.dtype, value.device) for name, value in model.named_parameters(recurse=False))
    weights = None if first is None else (first.dtype, first.device)
    state = vars(model)
    plain = tuple(
        (name, state[name])
        for name in sorted(state)
        if not name.startswith("_") and isinstance(state[name], (bool, int, float, str))
    )
    return (plain, id(getattr(model, "config", None)), weights, own)


def key_of_modes() -> Hashable:
    """Gradient mode and autocast."""
    autocast = tuple(
        torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None for device in ("cpu", "cuda")
    )
    inference = not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
    return (torch.is_grad_enabled(), inference, autocast)


def key_of_call(model: nn.Module, call: FlatCall, objects: tuple[str, ...]) -> Hashable:
    """Everything a graph depends on that is known before the call runs, apart from sizes and numbers.

    `objects` are the attributes in which the model holds plain objects.
    """
    inputs = tuple(_key_of_input(value) for value in call.inputs)
    held = state_of_objects(model, objects) if objects else None
    return (call.structure, inputs, key_of_model(model), held, key_of_modes())


def sizes_of_call(call: FlatCall) -> Hashable:
    """The exact shapes of all tensors and the values of all numbers of a call."""
    return tuple(
        tuple(value.shape) if isinstance(value, torch.Tensor) else value if is_number(value) else None
        for value in call.inputs
    )


def _key_of_input(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (value.ndim, value.dtype, value.device)
    return type(value)
