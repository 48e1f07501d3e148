"""Classes on the meta device, shrunken models, stacks and traced forwards, made once: many tests ask for the same few.

They are read, never written to. `shrink_source` itself is tested in tests/verify/test_numeric.py, how stacks are read
off a traced forward in tests/anatomy/test_from_model.py, and how a forward is traced in tests/graph and tests/tracing,
where each variant is traced by itself.
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

from surgery.anatomy import from_model, sources
from surgery.anatomy.anatomy import Stack
from surgery.anatomy.sources import ModelSource, build_on_meta
from surgery.checkpoint import compile_plan
from surgery.graph.removed_blocks import RemovedBlocks
from surgery.graph.traces import Traces
from surgery.publish import answers
from surgery.tracing.arguments import FlatCall
from surgery.tracing.guards import key_of_modes
from surgery.tracing.memo import PLAIN_TYPES, BlockMemo
from surgery.tracing.own_objects import state_of_objects
from surgery.tracing.tracer import TracedForward, trace_forward
from surgery.verify import numeric, structure
from surgery.verify.shrink import shrink_source

Build = Callable[..., Any]


def once_a_config(build: Build) -> Build:
    """The same function, run once for each config and what else it is given; one that raises is run again."""
    found: dict[Hashable, Any] = {}

    @functools.wraps(build)
    def build_once(source: ModelSource, *given: Hashable) -> Any:
        key = (json.dumps(dict(source.config), sort_keys=True, default=repr), *given)
        if key not in found:
            found[key] = build(source, *given)
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


@contextmanager
def reading_once() -> Iterator[None]:
    """Within it, the stacks of alike models of diffusers' own classes are read once, unless a test traces otherwise."""
    read = from_model._stacks_traced

    def of_diffusers_once(model: nn.Module, skeleton: nn.Module, kwargs: Mapping[str, Any]) -> tuple[Stack, ...]:
        is_known = type(model).__module__.startswith("diffusers.") and from_model.trace_forward is trace_forward
        return (TRACE_ONCE if is_known else read)(model, skeleton, kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_model, "_stacks_traced", of_diffusers_once)
        yield


def _shapes_of(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple((name, _shapes_of(item)) for name, item in value.items())
    return (value.shape, value.dtype) if isinstance(value, torch.Tensor) else repr(value)


def once_alike(trace: Callable[..., TracedForward]) -> Callable[..., TracedForward]:
    """`Traces.trace`, run once for models of one kind and config and calls of one shape; all variants share a trace."""
    found: dict[Hashable, TracedForward] = {}

    @functools.wraps(trace)
    def trace_once(
        traces: Traces,
        variant: nn.Module,
        removed: RemovedBlocks,
        call: FlatCall,
        objects: tuple[str, ...],
        stacks: tuple[str, ...],
        *,
        reads_contents: bool = False,
    ) -> TracedForward:
        kind = None if reads_contents else _kind_of(variant, call)
        if kind is None:
            return trace(traces, variant, removed, call, objects, stacks, reads_contents=reads_contents)
        config = json.dumps(dict(getattr(variant, "config", {})), sort_keys=True, default=repr)
        forwards = (removed.original_class.forward, frozenset(type(part).forward for part in variant.modules()))
        about = (forwards, config, state_of_objects(variant, objects), key_of_modes())
        key = (kind, call.structure, stacks, about)
        if key not in found:
            found[key] = trace(traces, variant, removed, call, objects, stacks)
        return found[key]

    return trace_once


def _kind_of(model: nn.Module, call: FlatCall) -> Hashable | None:
    """What decides a trace; None where that can't be told.

    Hooks of the model itself are not traced with it, nor are its blocks looked into: those that a variant lacks are
    put back, and a config says how many there are.
    """
    given = BlockMemo().key(nn.Module(), call.inputs, {})
    parts = tuple((name, _kind_of_part(part)) for name, part in model.named_children())
    if given is None or any(key is None for _, key in parts):
        return None
    tensors = (*model.named_parameters(recurse=False), *model.named_buffers(recurse=False))
    own = tuple((name, value.shape, value.dtype, value.device, value.requires_grad) for name, value in tensors)
    plain = tuple((name, repr(value)) for name, value in vars(model).items() if isinstance(value, PLAIN_TYPES))
    return given, parts, own, plain


def _kind_of_part(part: nn.Module) -> Hashable | None:
    if not isinstance(part, nn.ModuleList):
        return BlockMemo().key(part, (), {})
    return frozenset((type(block), frozenset((v.dtype, v.device) for v in block.parameters())) for block in part)


FORWARD_ONCE = once_alike(Traces.trace)
TRACE_ONCE = once_a_model(from_model._stacks_traced)
BUILD_ONCE, SHRINK_ONCE = once_a_config(build_on_meta), once_a_config(shrink_source)
SMALL_ONCE = once_a_config(numeric.build_small)


@contextmanager
def building_once() -> Iterator[None]:
    """Within it, what is compiled and what is shrunken is built once, and alike models are read and traced once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Traces, "trace", FORWARD_ONCE)
        patch.setattr(from_model, "_stacks_traced", TRACE_ONCE)
        for module in (sources, compile_plan, answers, structure):
            patch.setattr(module, "build_on_meta", BUILD_ONCE)
        patch.setattr(answers, "build_small", SMALL_ONCE)
        patch.setattr(numeric, "shrink_source", lambda source: replace(SHRINK_ONCE(source), name=source.name))
        yield
