"""A call of a forward, flattened: what becomes an input of the graph, and the constant structure around it."""

import inspect
import itertools
import keyword
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import nn

PLAIN_TYPES = (bool, str, bytes, type(None))  # themselves, no classes made of them: those may hold more
TORCH_CONSTANTS = (torch.dtype, torch.device, torch.Size, torch.layout)
NUMBER_TYPES = (int, float)
WRITTEN_TYPES = (bool, int, float, complex, str, bytes, type(None))  # Python writes the same only for the same


@dataclass(frozen=True)
class Slot:
    """The place of input number `index` in the structure of a call."""

    index: int


@dataclass(frozen=True)
class Constant:
    """A value that is part of the structure: calls with another value have another structure."""

    value: Hashable


@dataclass(frozen=True)
class Spelled:
    """A slice, range or set of plain values: the same where Python writes the same for it, in the same order."""

    kind: type
    text: str
    parts: tuple[Any, ...] = field(compare=False)

    def build(self) -> Any:
        return self.kind(self.parts) if self.kind in (set, frozenset) else self.kind(*self.parts)


@dataclass(frozen=True)
class Opaque:
    """Any other object: the same only where it is the same object."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclass(frozen=True)
class Passed:
    """The place of input number `index`, an object that is handed on as it is: what it holds may change from call to
    call, and what is written into it is for its owner. `same` tells which objects a graph may be given in its place."""

    index: int
    same: Opaque | Spelled


@dataclass(frozen=True)
class Container:
    """A tuple, list or dict; `keys` is None but for dicts."""

    kind: type
    keys: tuple[Hashable, ...] | None
    items: tuple["Layout", ...]


Layout = Slot | Constant | Spelled | Passed | Container


@dataclass(frozen=True)
class FlatCall:
    """Positional and keyword arguments as a hashable structure, and the tensors, numbers and objects in it."""

    structure: Container
    inputs: tuple[Any, ...]
    names: tuple[str, ...]


def is_number(value: Any) -> bool:
    """Whether a value is a number that may differ from call to call; members of an Enum are no such numbers."""
    return isinstance(value, NUMBER_TYPES) and not isinstance(value, (bool, Enum))


def parameters_of(forward: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a forward's parameters, without self, that may be given by position or by name."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    both = itertools.takewhile(lambda parameter: parameter.kind is parameter.POSITIONAL_OR_KEYWORD, parameters)
    return tuple(parameter.name for parameter in both)


def parameters_of_module(module: nn.Module) -> tuple[str, ...]:
    """The same of the forward of a module, whatever wraps it."""
    return parameters_of(inspect.unwrap(type(module).forward))


def flatten_call(args: Sequence[Any], kwargs: Mapping[str, Any], parameters: Sequence[str]) -> FlatCall:
    """Flatten a call of a forward; `parameters` are the names of those of its arguments that have a position as well.

    Such an argument is the same however it is given. Arguments beyond them (`*rest`) keep their place.
    """
    inputs: list[Any] = []
    names: list[str] = []

    def keep(value: Any, name: str) -> int:
        inputs.append(value)
        names.append(name)
        return len(inputs) - 1

    def flatten(value: Any, name: str) -> Layout:
        if isinstance(value, torch.Tensor) or is_number(value):
            return Slot(keep(value, name))
        if type(value) in PLAIN_TYPES or isinstance(value, TORCH_CONSTANTS):
            return Constant(value)
        if type(value) in (tuple, list) or (isinstance(value, tuple) and hasattr(value, "_fields")):
            return Container(type(value), None, tuple(flatten(item, f"{name}_{i}") for i, item in enumerate(value)))
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            items = tuple(flatten(item, f"{name}_{key}") for key, item in value.items())
            return Container(dict, tuple(value), items)
        written = _written(value)
        if written is not None and not isinstance(value, set):  # nobody can change the others
            return written
        return Passed(keep(value, name), written or Opaque(value))

    named = {(parameters[i] if i < len(parameters) else i): value for i, value in enumerate(args)} | dict(kwargs)
    structure = Container(dict, tuple(named), tuple(flatten(value, f"arg_{key}") for key, value in named.items()))
    return FlatCall(structure, tuple(inputs), _identifiers(names))


def _written(value: Any) -> Spelled | None:
    """None for what is no slice, range or set, has other parts than plain ones, or whose copy has another order."""
    if type(value) in (slice, range):
        parts = (value.start, value.stop, value.step)
    elif type(value) in (set, frozenset):
        parts = tuple(value)
    else:
        return None
    written = Spelled(type(value), repr(value), parts)
    is_plain = all(type(part) in WRITTEN_TYPES for part in parts)
    return written if is_plain and repr(written.build()) == written.text else None


def _identifiers(names: Sequence[str]) -> tuple[str, ...]:
    """Different Python identifiers, as like the names as can be; they become parameters of the traced forward."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name.removeprefix("arg_"))
        if keyword.iskeyword(plain) or not plain.isidentifier() or plain in ("self", *found):
            plain = f"input_{len(found)}_{plain}"
        found.append(plain)
    return tuple(found)


def unflatten_call(structure: Container, inputs: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments of a call, with these inputs in its slots."""

    def build(item: Layout) -> Any:
        match item:
            case Slot(index) | Passed(index):
                return inputs[index]
            case Constant(value):
                return value
            case Spelled():
                return item.build()
            case Container(kind, keys, items):
                built = [build(child) for child in items]
                if keys is not None:
                    return dict(zip(keys, built, strict=True))
                return kind(*built) if hasattr(kind, "_fields") else kind(built)

    named = build(structure)
    num_positional = max((key + 1 for key in named if isinstance(key, int)), default=0)  # those before `*rest` too
    values, names = list(named.values()), list(named)
    return tuple(values[:num_positional]), dict(zip(names[num_positional:], values[num_positional:], strict=True))
