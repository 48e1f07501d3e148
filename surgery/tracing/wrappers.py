"""The decorators around a class's `forward`, rebuilt around another function.

diffusers decorates forwards with code that must run on every call (scaling LoRA layers by what the call says). A
decorated function holds the one below it in a closure; the same decorator with the cell exchanged is the same wrapper
around a new inner function.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

from surgery.errors import TraceError

Forward = Callable[..., Any]


def innermost(forward: Forward) -> Forward:
    """The function below all decorators that use `functools.wraps`."""
    while hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
    return forward


def rewrap(forward: Forward, inner: Forward) -> Forward:
    """`forward` with its innermost function replaced by `inner`, every decorator kept.

    Raises:
        TraceError: a decorator does not hold the function below it in a closure.
    """
    below = getattr(forward, "__wrapped__", None)
    if below is None:
        return inner
    replaced = rewrap(below, inner)
    if not isinstance(forward, types.FunctionType):
        raise TraceError(f"the decorator {forward!r} around forward is not a plain function; it can't be rebuilt")
    cells = [types.CellType(replaced) if cell.cell_contents is below else cell for cell in forward.__closure__ or ()]
    if all(new is old for new, old in zip(cells, forward.__closure__ or (), strict=True)):
        raise TraceError(f"the decorator {forward.__qualname__} around forward hides the function it wraps")
    rebuilt = types.FunctionType(
        forward.__code__, forward.__globals__, forward.__name__, forward.__defaults__, tuple(cells)
    )
    rebuilt.__kwdefaults__ = forward.__kwdefaults__
    return functools.wraps(replaced)(rebuilt)
