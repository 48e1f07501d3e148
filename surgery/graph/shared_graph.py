"""A graph of several forwards: what two of them have in common, an operation on the same values, is one node of it."""

from collections.abc import Hashable, Mapping
from typing import Any

from torch import fx


class SharedGraph(fx.Graph):
    """Forwards are written into it one after the other, and only what an earlier one has not is new.

    Nodes must not change what they are given. Within the forward that is being written, `renamed` gives the names of
    modules that are not what others call so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.renamed: Mapping[str, str] = {}
        self.known: dict[Hashable, fx.Node] = {}

    def create_node(
        self,
        op: str,
        target: Any,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        type_expr: Any | None = None,
    ) -> fx.Node:
        """The node that does this already, or a new one; an output is one operation among the others."""
        if op == "output":
            op, target = "call_function", returned
        if op == "call_module":
            target = self.renamed.get(target, target)
        key = (op, target, _key_of(args or ()), _key_of(kwargs or {}))
        if key not in self.known:
            self.known[key] = super().create_node(op, target, args, kwargs, name, type_expr)
        return self.known[key]


def returned(value: Any) -> Any:
    """What a forward returns."""
    return value


class _Same:
    """A constant that equals none but itself."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _key_of(value: Any) -> Hashable:
    """Equal for arguments that are the same nodes and constants; 1, 1.0 and True are not the same, nor 0.0 and -0.0."""
    match value:
        case fx.Node():
            return value
        case tuple() | list():
            return (type(value), tuple(_key_of(item) for item in value))
        case dict():
            return (dict, tuple((key, _key_of(item)) for key, item in value.items()))
        case slice(start=start, stop=stop, step=step):
            return (slice, _key_of(start), _key_of(stop), _key_of(step))
        case bool() | int() | str() | None:
            return (type(value), value)
        case float():
            return (float, repr(value))
    return _Same(value)
