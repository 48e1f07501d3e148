"""Tiny models of every transformer class of the installed diffusers, with calls that they run: read from `reach.yaml`.

Each class has a config, of four blocks a stack, and a call of its forward, whose tensors are written as what is in them
and their sizes: `normal 2 9 4` (seeded random numbers), `uniform 2`, `zeros 2 7`, `ones 2 7 : integer`, `true 2 7`,
`range 9`, `integers 10 2 7` (random ones below 10), `tensor [[1, 2]]`. `new module.Class 4` is an object of a class
that is made with this number. All else is given to the forward as it is.
"""

import functools
import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from torch import nn

CASES = Path(__file__).with_name("reach.yaml")
MODULE = "diffusers.models.transformers."
KINDS = ("normal", "uniform", "zeros", "ones", "true", "range", "integers", "tensor", "new")


@functools.cache
def read_cases() -> Mapping[str, Any]:
    """What `reach.yaml` holds: a config and a call by the name of a class."""
    cases: Mapping[str, Any] = yaml.safe_load(CASES.read_text())
    return cases


def transformer_classes() -> tuple[str, ...]:
    """The names of all transformer classes that the installed diffusers offers."""
    offered = (name for name in dir(diffusers) if not name.startswith("_"))
    found = ((name, getattr(diffusers, name)) for name in offered)
    return tuple(
        name
        for name, member in found
        if inspect.isclass(member) and issubclass(member, diffusers.ModelMixin) and member.__module__.startswith(MODULE)
    )


def build_transformer(name: str, *, seed: int = 0) -> nn.Module:
    """The tiny model of a class in evaluation mode, float32, with seeded random weights in every layer."""
    torch.manual_seed(seed)
    model: nn.Module = getattr(diffusers, name).from_config(read_cases()[name]["config"]).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.1)
    return model


def transformer_call(name: str, *, seed: int = 1) -> dict[str, Any]:
    """The arguments of a call of it, by name; each time new objects."""
    generator = torch.Generator().manual_seed(seed)
    return {key: _made(value, generator) for key, value in read_cases()[name]["call"].items()}


def _made(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, list):
        return [_made(item, generator) for item in value]
    if isinstance(value, dict):
        return {key: _made(item, generator) for key, item in value.items()}
    if isinstance(value, str) and value.partition(" ")[0] in KINDS:
        kind, written = value.split(" ", 1)
        return _object(written) if kind == "new" else _tensor(kind, written, generator)
    return value


def _object(written: str) -> Any:
    path, size = written.split()
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(int(size))


def _tensor(kind: str, written: str, generator: torch.Generator) -> torch.Tensor:
    if kind == "tensor":
        return torch.tensor(json.loads(written))
    sizes, _, dtype = written.partition(" : ")
    numbers = [int(size) for size in sizes.split()]
    match kind:
        case "normal":
            return torch.randn(numbers, generator=generator)
        case "uniform":
            return torch.rand(numbers, generator=generator)
        case "true":
            return torch.ones(numbers, dtype=torch.bool)
        case "range":
            return torch.arange(*numbers)
        case "integers":
            return torch.randint(numbers[0], numbers[1:], generator=generator)
    made = torch.zeros(numbers) if kind == "zeros" else torch.ones(numbers)
    return made.long() if dtype == "integer" else made
