"""A real call of a forward -> a row: its arguments, their shapes, dtypes and kinds, and no value of a float tensor.

Sizes are written as fields of the config where they equal one, and as free sizes where they may differ from call to
call; sizes that are the same number are the same size.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from surgery.calls.call_rows import FREE_SIZES, Form, Maker, Row, Sizes, make_arguments
from surgery.errors import RefusedError
from surgery.tracing.arguments import parameters_of_module

PICTURE_NDIM, VIDEO_NDIM = 4, 5  # of latents: (batch, channels, height, width), with frames after the channels
MAX_CONTENTS = 64  # values of an integer tensor that are kept one by one
TEXT_WORDS = ("text", "encoder", "txt", "cap", "prompt", "embed")
RESULT_ARGUMENTS = ("return_dict",)


def describe_call(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Row, dict[str, int]]:
    """The row of a call of a model's forward, and its free sizes.

    Raises:
        RefusedError: it was given an object that can't be written down.
    """
    named = {**dict(zip(parameters_of_module(model), args, strict=False)), **kwargs}
    given = {name: value for name, value in named.items() if value is not None and name not in RESULT_ARGUMENTS}
    config = dict(getattr(model, "config", {}))
    weight = next(value for value in model.parameters() if value.is_floating_point())
    namer = _Namer(config, weight.dtype, given)
    row = {name: namer.describe(name, value) for name, value in given.items()}
    sizes = namer.sizes()
    _refuse_difference(given, row, Sizes(sizes, config), weight)
    return row, sizes


@dataclass
class _Namer:
    """Gives names to the sizes of a call, the same name to the same number."""

    config: Mapping[str, Any]
    dtype: torch.dtype
    given: Mapping[str, Any]
    names: dict[int, str] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = next(iter(self.given.values()), None)
        if isinstance(first, (list, tuple)):
            self.batch = len(first)
        else:
            self.batch = first.shape[0] if isinstance(first, torch.Tensor) and first.ndim else 1
        self.taken["batch"] = self.batch
        self._name_products()

    def _name_products(self) -> None:
        """Plain numbers of which a tensor's size is the product: rows and columns of its tokens."""
        wanted = {size for value in _tensors(self.given) for size in value.shape if size > 1}
        groups = list(_int_groups(self.given))
        alone = [(name, value) for name, value in self.given.items() if type(value) is int and value > 1]
        for count in (3, 2):
            groups += [tuple(group) for group in itertools.combinations(alone, count)]
        for group in groups:
            numbers = [number for _, number in group if number > 1]
            if len(numbers) > 1 and math.prod(numbers) in wanted - set(self.names):
                terms = [self.name_number(number, name) for name, number in group if number > 1]
                self.names[math.prod(numbers)] = "*".join(terms)

    def name_number(self, number: int, name: str) -> str:
        """A free size for a number."""
        chosen = name
        for count in itertools.count(2):
            if self.taken.setdefault(chosen, number) == number:
                return chosen
            chosen = f"{name}{count}"
        raise AssertionError("names do not run out")

    def sizes(self) -> dict[str, int]:
        """The free sizes that were named."""
        return dict(self.taken)

    def describe(self, name: str, value: Any) -> Form:
        """The form of one argument, or of a part of it."""
        if isinstance(value, torch.Tensor):
            return self._describe_tensor(name, value)
        if (isinstance(value, tuple) and type(value) is tuple) or isinstance(value, torch.Size):
            return {"tuple": [self.describe(name, item) for item in value]}
        if type(value) is list:
            return [self.describe(name, item) for item in value]
        if isinstance(value, Mapping):
            return {"dict": {str(key): self.describe(str(key), item) for key, item in value.items()}}
        if type(value) is int and value in self.taken.values() and value > 1:
            known = next((size for size, number in self.taken.items() if number == value and size != "batch"), None)
            return {"value": value} if known is None else {"size": known}
        if isinstance(value, (bool, int, float, str, type(None))):
            return {"value": value}
        raise RefusedError(f"its argument {name} is given a {type(value).__name__}, which can't be written down")

    def _describe_tensor(self, name: str, value: torch.Tensor) -> Form:
        shape = " ".join(self._terms(name, value))
        form: dict[str, Any] = {"tensor": shape}
        if value.dtype != self.dtype:
            form["dtype"] = str(value.dtype).removeprefix("torch.")
        contents = self._contents(value)
        return shape if len(form) == 1 and not contents else {**form, **contents}

    def _contents(self, value: torch.Tensor) -> dict[str, Any]:
        """What makes an integer or boolean tensor valid; of a float tensor only a value for the whole of a vector."""
        if value.is_meta or not value.numel():
            return {} if value.is_floating_point() else {"fill": 0}
        if value.is_floating_point():
            return {"fill": float(value.flatten()[0])} if value.ndim < 2 else {}
        if value.is_complex():
            return {"fill": 0}
        flat = value.flatten().tolist()
        if len(set(flat)) == 1:
            known = [size for size, number in self.taken.items() if number == flat[0] and size != "batch"]
            return {"fill": known[0] if known and type(flat[0]) is int and flat[0] > 1 else flat[0]}
        if flat == list(range(len(flat))):
            return {"range": True}
        if len(flat) <= MAX_CONTENTS:
            return {"values": value.tolist()}
        return {"fill": max(flat) if value.dtype == torch.bool else min(flat)}

    def _terms(self, name: str, value: torch.Tensor) -> Iterator[str]:
        channels = self._channel_axis(value)
        for axis, size in enumerate(value.shape):
            if axis == channels:
                yield self._channels(name, size)
            elif size == self.batch and axis == 0 and (value.ndim > 1 or size > 1 or "time" in name):
                yield "batch"
            elif size <= 1:
                yield str(size)
            else:
                yield self._free(name, value, axis)

    def _channel_axis(self, value: torch.Tensor) -> int | None:
        if not value.is_floating_point() or value.ndim < 2:
            return None
        if value.ndim in (PICTURE_NDIM, VIDEO_NDIM):
            fields = set(_fields(self.config).values())
            return next((axis for axis in (1, 2, value.ndim - 1, 0) if value.shape[axis] in fields), 1)
        return value.ndim - 1

    def _channels(self, name: str, size: int) -> str:
        """The field of the config that a number of channels is; the number itself where there is none."""
        fields = [field for field, number in _fields(self.config).items() if number == size and size > 1]
        words = set(name.split("_"))
        ranked = sorted(fields, key=lambda field: -len(words & set(field.split("_"))))
        is_first = name == next(iter(self.given))
        if is_first and "in_channels" in fields:
            return "in_channels"
        return ranked[0] if ranked else str(size)

    def _free(self, name: str, value: torch.Tensor, axis: int) -> str:
        size = value.shape[axis]
        if value.ndim >= PICTURE_NDIM and axis >= value.ndim - 2:
            return self.name_number(size, ("height", "width")[axis - value.ndim])
        if size in self.names:
            return self.names[size]
        parts = [(one, other) for one, other in itertools.combinations(self.names, 2) if one + other == size]
        if parts:
            self.names[size] = "+".join(self.names[part] for part in parts[0])
        elif value.ndim >= PICTURE_NDIM:
            self.names[size] = self.name_number(size, "frames")
        else:
            is_text = any(word in name for word in TEXT_WORDS)
            self.names[size] = self.name_number(size, "text" if is_text else "image")
        return self.names[size]


def _fields(config: Mapping[str, Any]) -> dict[str, int]:
    return {name: value for name, value in config.items() if type(value) is int and name not in FREE_SIZES}


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _int_groups(value: Any) -> Iterator[tuple[tuple[str, int], ...]]:
    """The lists and tuples of two or three plain integers in a call, each with names: frames, rows, columns."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        if len(value) in (2, 3) and all(type(item) is int for item in value):
            yield tuple(zip(("frames", "rows", "columns")[-len(value) :], value, strict=True))
        else:
            for item in value:
                yield from _int_groups(item)


def _refuse_difference(given: Mapping[str, Any], row: Row, sizes: Sizes, weight: torch.Tensor) -> None:
    """Raise RefusedError where the row does not make tensors of the shapes and dtypes that were given."""
    made = make_arguments(row, Maker(sizes, torch.empty((), dtype=weight.dtype, device="meta"), None))
    for name, value in given.items():
        pairs = zip(_tensors(value), _tensors(made[name]), strict=True)
        if any((one.shape, one.dtype) != (other.shape, other.dtype) for one, other in pairs):
            raise RefusedError(f"its argument {name} can't be written down as a row")
