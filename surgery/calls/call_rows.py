"""A row -> a call: what a forward is given, as plain data, made for one model.

A row says for each argument what it is:

* `"batch text joint_attention_dim"`: a tensor of that shape, of the dtype of the model's weights. A size is a number,
  an integer of the config (`patch_size`, `patch_size[1]`), a free size (`batch`, `height`, ...), or such joined by `+`,
  `*` and `//`. `... if guidance_embeds`: only where that field of the config is set; `... : integer`, `... : boolean`.
* `{"tensor": "batch", "dtype": "int64", "fill": 3}`: the same with what is in it: a value, all `values`, or a `range`.
* `[...]`, `{"tuple": [...]}`, `{"dict": {...}}`: a list, tuple or dict of these;
  `{"list": ..., "times": "batch"}` is a list of so many of the same.
* `{"size": "height"}` and `{"value": 1.5}`: a number, and any other plain value.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Form = Any  # of one argument, as above
Row = Mapping[str, Form]

FREE_SIZES = ("batch", "height", "width", "frames", "text", "image", "rows", "columns")  # never fields of a config


@dataclass
class Sizes:
    """The sizes that the terms of a row stand for; `used` are the free ones among them."""

    free: Mapping[str, int]
    config: Mapping[str, Any]
    used: set[str] = field(default_factory=set)

    def resolve(self, term: str) -> int:
        """A term as a number; raises LookupError, TypeError or ValueError where it is none."""
        if "+" in term:
            return sum(self.resolve(part) for part in term.split("+"))
        if "*" in term:
            return math.prod(self.resolve(part) for part in term.split("*"))
        if "//" in term:
            whole, part = term.split("//")
            return self.resolve(whole) // self.resolve(part)
        if term.isdigit():
            return int(term)
        if term in self.free:
            self.used.add(term)
            return self.free[term]
        name, _, index = term.partition("[")
        value = self.config[name]
        return int(value[int(index.removesuffix("]"))] if index else value)

    def shape(self, text: str) -> list[int]:
        """The sizes of a shape."""
        return [self.resolve(term) for term in text.split()]


@dataclass(frozen=True)
class Maker:
    """Makes the arguments of rows. `weight` has the device and the dtype that tensors get where a row says none."""

    sizes: Sizes
    weight: torch.Tensor
    generator: torch.Generator | None

    def make(self, name: str, form: Form) -> Any:
        """The value of a form, which is that of the argument `name`, or in it."""
        if isinstance(form, str):
            shape, _, kind = form.partition(":")
            return self._tensor(name, self.sizes.shape(shape), kind.strip())
        if isinstance(form, list):
            return [self.make(name, item) for item in form]
        if "tensor" in form:
            return self._filled(name, self.sizes.shape(form["tensor"]), form)
        if "list" in form:
            return [self.make(name, form["list"]) for _ in range(self.sizes.resolve(form["times"]))]
        if "tuple" in form:
            return tuple(self.make(name, item) for item in form["tuple"])
        if "dict" in form:
            return {key: self.make(key, item) for key, item in form["dict"].items()}
        return self.sizes.resolve(form["size"]) if "size" in form else form["value"]

    def _tensor(self, name: str, shape: list[int], kind: str) -> torch.Tensor:
        weight = self.weight
        if kind == "boolean":
            return torch.ones(shape, dtype=torch.bool, device=weight.device)
        if kind == "integer":
            return torch.zeros(shape, dtype=torch.long, device=weight.device)
        if name.endswith("_mask"):
            return torch.ones(shape, dtype=weight.dtype, device=weight.device)
        if name == "timestep":
            return torch.full(shape, 0.5, dtype=weight.dtype, device=weight.device)
        if self.generator is None or weight.is_meta:
            return torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        noise = torch.randn(shape, generator=self.generator, device=self.generator.device)
        return noise.to(weight.device, weight.dtype)

    def _filled(self, name: str, shape: list[int], form: Mapping[str, Any]) -> torch.Tensor:
        dtype = getattr(torch, form["dtype"]) if "dtype" in form else self.weight.dtype
        if "values" in form:
            return torch.tensor(form["values"], dtype=dtype, device=self.weight.device).reshape(shape)
        if "fill" in form:
            fill = form["fill"]
            value = self.sizes.resolve(fill) if isinstance(fill, str) else fill
            return torch.full(shape, value, dtype=dtype, device=self.weight.device)
        if "range" in form:
            values = torch.arange(math.prod(shape), dtype=dtype, device=self.weight.device)
            return values.reshape(shape)
        return self._tensor(name, shape, "").to(dtype)


def make_arguments(row: Row, maker: Maker) -> dict[str, Any]:
    """The keyword arguments of a row. `head.key` is an entry of the dict `head`."""
    kwargs: dict[str, Any] = {}
    for argument, given in row.items():
        head, _, key = argument.partition(".")
        form, condition = _split_condition(given)
        is_given = condition is None or bool(maker.sizes.config.get(condition))
        if key:
            kwargs.setdefault(head, {})[key] = maker.make(head, form) if is_given else None
        elif is_given:
            kwargs[head] = maker.make(head, form)
    return kwargs


def _split_condition(form: Form) -> tuple[Form, str | None]:
    """A form without its `if FIELD`, and that field."""
    if not isinstance(form, str) or " if " not in form:
        return form, None
    shape, _, rest = form.partition(" if ")
    condition, _, kind = rest.partition(":")
    return f"{shape}:{kind}", condition.strip()


def terms_of(form: Form) -> set[str]:
    """All words in the shapes and sizes of a form."""
    if isinstance(form, str):
        return set(re.findall(r"[a-zA-Z_]\w*", form.partition(":")[0]))
    if isinstance(form, list):
        return set().union(*map(terms_of, form))
    texts = [form[name] for name in ("tensor", "size", "times", "fill") if isinstance(form.get(name), str)]
    inner = [form[name] for name in ("list", "tuple") if name in form] + list(form.get("dict", {}).values())
    return set().union(*map(terms_of, [*texts, *inner]))
