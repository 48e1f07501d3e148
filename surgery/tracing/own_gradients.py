"""Functions with a gradient of their own (`torch.autograd.Function`): a graph does not look into them.

It would hold the operations of such a function, and with them their gradients instead of its own.
"""

import inspect
import traceback
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

import torch

from surgery.errors import TraceError


def functions_by_code() -> dict[CodeType, str]:
    """The names of all such functions that are defined by now, by the code of their forwards, undecorated."""
    forwards = {kind: inspect.unwrap(kind.forward) for kind in _subclasses(torch.autograd.Function)}
    return {forward.__code__: kind.__name__ for kind, forward in forwards.items() if hasattr(forward, "__code__")}


def refuse_own_gradients(functions: Mapping[CodeType, str], outermost: CodeType | None) -> None:
    """Refuse to be in the forward of such a function; what the code `outermost` was called by is not looked at.

    Raises:
        TraceError: it is in one.
    """
    for frame, _ in traceback.walk_stack(inspect.currentframe()):
        if frame.f_code in functions:
            name = functions[frame.f_code]
            raise TraceError(f"it calls the autograd function {name}, whose own gradient a graph would not have")
        if frame.f_code is outermost:
            return


def _subclasses(kind: Any) -> Iterator[Any]:
    for found in kind.__subclasses__():
        yield found
        yield from _subclasses(found)
