"""Classes on the meta device, shrunken models and stacks, made once: many tests ask for the same few.

They are read, never written to. `shrink_source` itself is tested in tests/verify/test_numeric.py, and how stacks are
read off a traced forward in tests/anatomy/test_from_model.py.
"""

import functools
import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from surgery.anatomy import from_model
from surgery.anatomy.anatomy import Stack
from surgery.anatomy.sources import ModelSource, build_on_meta
from surgery.checkpoint import compile_plan
from surgery.publish import answers
from surgery.verify import numeric, structure
from surgery.verify.shrink import shrink_source

Build = Callable[[ModelSource], Any]


def once_a_config(build: Build) -> Build:
    """The same function, run once for each config; one that raises is run again."""
    found: dict[str, Any] = {}

    @functools.wraps(build)
    def build_once(source: ModelSource) -> Any:
        key = json.dumps(dict(source.config), sort_keys=True, default=repr)
        if key not in found:
            found[key] = build(source)
        return found[key]

    return build_once


def once_a_model(trace: Callable[..., tuple[Stack, ...]]) -> Callable[..., tuple[Stack, ...]]:
    """The same function, run once for models with the same config, modules and tensors, and calls of one shape."""
    found: dict[Hashable, tuple[Stack, ...]] = {}

    @functools.wraps(trace)
    def trace_once(model: nn.Module, skeleton: nn.Module, kwargs: Mapping[str, Any]) -> tuple[Stack, ...]:
        modules = tuple((name, type(part), type(part).forward) for name, part in model.named_modules())
        tensors = tuple((name, value.shape, value.dtype) for name, value in model.state_dict().items())
        config = json.dumps(dict(getattr(model, "config", {})), sort_keys=True, default=repr)
        key = (config, modules, tensors, _shapes_of(kwargs))
        if key not in found:
            found[key] = trace(model, skeleton, kwargs)
        return found[key]

    return trace_once


def _shapes_of(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple((name, _shapes_of(item)) for name, item in value.items())
    return (value.shape, value.dtype) if isinstance(value, torch.Tensor) else repr(value)


TRACE_ONCE = once_a_model(from_model._stacks_traced)
BUILD_ONCE, SHRINK_ONCE = once_a_config(build_on_meta), once_a_config(shrink_source)
SMALL_ONCE = once_a_config(numeric.build_small)


@contextmanager
def building_once() -> Iterator[None]:
    """Within it, what is compiled and what is shrunken is built once, and the stacks of alike models are read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_model, "_stacks_traced", TRACE_ONCE)
        for module in (compile_plan, answers, structure):
            patch.setattr(module, "build_on_meta", BUILD_ONCE)
        patch.setattr(answers, "build_small", SMALL_ONCE)
        patch.setattr(numeric, "shrink_source", lambda source: replace(SHRINK_ONCE(source), name=source.name))
        yield
