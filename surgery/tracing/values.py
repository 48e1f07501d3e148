"""Proxies that carry the value they had while tracing: what Python asks of them is answered by it.

Shapes and numbers stay symbolic in the graph for as long as the forward only computes with them. Where it decides on
one (`if`, `int()`, `len()` of a tensor), the decision is recorded as a check (see `guards.py`).
"""

import functools
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node, Proxy
from torch.multiprocessing.reductions import StorageWeakRef

from surgery.tracing.asked_in_python import is_asked_in_python

SPECIALIZED_ATTRIBUTES = frozenset(
    {"dtype", "device", "ndim", "layout", "is_cuda", "is_sparse", "is_quantized", "requires_grad", "is_meta", "names"}
)


class ValueProxy(Proxy):
    """A proxy of a node whose value on the example call is `node.meta["value"]`."""

    tracer: Any  # a ValueTracer; its module imports this one

    def __init__(self, node: Node, tracer: Any) -> None:
        super().__init__(node, tracer)
        tracer.register_alias(self)

    @property
    def value(self) -> Any:
        """The value on the example call: a (fake) tensor, a number, a tuple, ..."""
        return self.node.meta["value"]

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # makes isinstance(proxy, torch.Tensor) true in the code that is traced
        value = self.node.meta.get("value")
        if isinstance(value, torch.Tensor):
            return torch.Tensor if is_asked_in_python() else ValueProxy
        if type(value) in (bool, int, float, tuple, list, dict, torch.Size):
            return type(value)
        return ValueProxy

    def __getattr__(self, name: str) -> Any:
        with self.tracer.concretely():
            actual = getattr(self.value, name)
        if isinstance(self.value, torch.Tensor) and name in SPECIALIZED_ATTRIBUTES:
            if name == "ndim":
                self.tracer.check_rank(self, len(self.value.shape))
            return actual
        if callable(actual) and not isinstance(actual, torch.Tensor):
            return functools.partial(self.tracer.call_method_of, self, name)
        return self.tracer.record_function(getattr, (self, name))

    def __bool__(self) -> bool:
        value = self.value
        if value is None or isinstance(value, (tuple, list, dict, str)):
            return bool(value)
        return bool(self.tracer.decide(self, bool))

    def __int__(self) -> int:
        return int(self.tracer.decide(self, int))

    def __index__(self) -> int:
        return int(self.tracer.decide(self, int))

    def __float__(self) -> float:
        return float(self.tracer.decide(self, float))

    def __len__(self) -> int:
        if isinstance(self.value, torch.Tensor):
            return int(self.shape[0])
        if self.node.op in {"call_function", "call_method"}:
            return int(self.tracer.decide_length(self))
        return len(self.value)  # of a shape, or of what a submodule returns: part of its structure

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.value, dict):
            return iter(self.value)
        return iter([self.tracer.record_function(operator.getitem, (self, index)) for index in range(len(self))])

    def __contains__(self, item: object) -> bool:
        return any(bool(element == item) for element in self)

    def keys(self) -> Any:
        """The keys of a dict, which are part of the graph's structure."""
        return self.value.keys()

    def __setitem__(self, index: Any, update: Any) -> None:
        self.tracer.assign_item(self, index, update)

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.operate_in_place(self, operator.add, "add_", other)

    def __isub__(self, other: Any) -> Any:
        return self.tracer.operate_in_place(self, operator.sub, "sub_", other)

    def __imul__(self, other: Any) -> Any:
        return self.tracer.operate_in_place(self, operator.mul, "mul_", other)

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.operate_in_place(self, operator.truediv, "div_", other)

    def __hash__(self) -> int:
        return id(self)


def value_of(item: Any) -> Any:
    """Proxies in (nested) containers replaced by their values."""
    if issubclass(type(item), ValueProxy):
        return item.value
    if isinstance(item, slice):
        return slice(value_of(item.start), value_of(item.stop), value_of(item.step))
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*(value_of(element) for element in item))
    if type(item) in (tuple, list):
        return type(item)(value_of(element) for element in item)
    if isinstance(item, dict):
        return {key: value_of(element) for key, element in item.items()}
    return item


def has_proxy(item: Any) -> bool:
    """Whether there is a proxy in (nested) containers."""
    if issubclass(type(item), ValueProxy):
        return True
    if isinstance(item, slice):
        return has_proxy(item.start) or has_proxy(item.stop) or has_proxy(item.step)
    if isinstance(item, (tuple, list)):
        return any(has_proxy(element) for element in item)
    if isinstance(item, dict):
        return any(has_proxy(element) for element in item.values())
    return False


def storage_of(value: Any) -> int | None:
    """What identifies the memory of a tensor, fake ones too; None for everything else."""
    return StorageWeakRef(value.untyped_storage()).cdata if isinstance(value, torch.Tensor) else None
