"""Functions with a gradient of their own (`torch.autograd.Function`): a graph does not look into them.

It would hold the operations of such a function, and with them their gradients instead of its own.
"""

from collections.abc import Iterator
from types import CodeType
from typing import Any

import torch


def codes_with_own_gradients() -> frozenset[CodeType]:
    """The code of the forwards of all such functions that are defined by now."""
    found = (vars(function).get("forward") for function in _subclasses(torch.autograd.Function))
    codes = (getattr(getattr(forward, "__func__", forward), "__code__", None) for forward in found)
    return frozenset(code for code in codes if code is not None)


def _subclasses(kind: Any) -> Iterator[Any]:
    for found in kind.__subclasses__():
        yield found
        yield from _subclasses(found)
