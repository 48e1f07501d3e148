"""A model under a plan: a copy that shares all weights, is of the original's class, and runs rewritten graphs."""

import contextlib
import dataclasses
import functools
import inspect
from typing import Any, NoReturn

import torch
from torch import nn

from surgery.anatomy.anatomy import Anatomy
from surgery.calls.example_inputs import example_call, why_no_call
from surgery.errors import RefusedError, TraceError
from surgery.graph.graph_code import readable_source
from surgery.graph.replace import Means, stand_in_for
from surgery.graph.rewritten_forward import RewrittenForward
from surgery.graph.same_name import subclass_of_same_name
from surgery.graph.switched_components import running, switch_components_
from surgery.graph.traces import Traces
from surgery.graph.windowed_forward import WindowedForward
from surgery.plan.plan import Plan
from surgery.plan.windowed import WHEN, AnyPlan, WindowedPlan, names_of
from surgery.tracing.arguments import FlatCall, flatten_call
from surgery.tracing.clone import clone_module
from surgery.tracing.wrappers import innermost, rewrap

ATTRIBUTE = "_surgery"  # of a variant: its RewrittenForward, out of sight of torch


def build_variant(
    model: nn.Module, plan: AnyPlan, anatomy: Anatomy, means: Means | None = None, traces: Traces | None = None
) -> nn.Module:
    """The model under `plan`. The original is left as it is; all weights are shared with it.

    `means` holds, for each replaced component by dotted name, one vector (channels,) a stream; `traces` are those of
    all variants of this model that are made together.

    Raises:
        RefusedError: the plan can't be done on this model's graph.
        TraceError: the forward can't be traced.
    """
    variant = _clone_as_variant(model)
    if isinstance(plan, WindowedPlan):
        switch_components_(variant, plan, anatomy, means or {})
        variant.__dict__[ATTRIBUTE] = WindowedForward(
            model, plan, traces
        )  # each plan is traced when it is first needed
        return variant
    rewritten = RewrittenForward(model, plan, traces=traces)
    _replace_components(variant, plan, anatomy, means or {})
    variant.__dict__[ATTRIBUTE] = rewritten
    example = rewritten.traces.example(model)
    if example is not None:  # otherwise at the first run
        _trace_example(variant, rewritten, flatten_call((), example.kwargs, rewritten.parameters))
    return variant


def run_by(model: nn.Module, forward: Any) -> nn.Module:
    """A clone of a model whose calls are handed to `forward.run(model, args, kwargs)`, within its own decorators."""
    clone = _clone_as_variant(model)
    clone.__dict__[ATTRIBUTE] = forward
    return clone


def _clone_as_variant(model: nn.Module) -> nn.Module:
    original_class: Any = type(model)  # nn.Module is typed as unhashable
    assert not is_variant(model), "apply refuses variants"
    variant = clone_module(model)
    variant.__class__ = variant_class(original_class)
    _rebind_forward(variant, original_class)
    return variant


def is_variant(model: nn.Module) -> bool:
    """Whether a model is the result of surgery."""
    return isinstance(model.__dict__.get(ATTRIBUTE), (RewrittenForward, WindowedForward))


def forward_of_variant(variant: nn.Module) -> RewrittenForward | WindowedForward:
    """What a variant runs."""
    forward: RewrittenForward | WindowedForward = variant.__dict__[ATTRIBUTE]
    return forward


def source_of_variant(variant: nn.Module) -> str:
    """The Python code of the rewritten forward of a variant, as it was traced first; with windows, of each plan's.

    A variant without weights is traced for a call on the CPU, so that the code names no meta device.

    Raises:
        RefusedError: it has not run yet, and its class has no example inputs, or can't be traced whole.
    """
    forward = forward_of_variant(variant)
    if isinstance(forward, RewrittenForward):
        return _source_of(variant, forward)
    parts = []
    for plan, atoms in forward.plan.by_plan.items():
        with running(plan):
            source = _source_of(variant, forward.forwards[plan])
        parts.append(f"# {WHEN}{names_of(atoms)}\n{source}")
    return "\n\n".join(parts)


def _source_of(variant: nn.Module, rewritten: RewrittenForward) -> str:
    example = example_call(variant)
    if example is not None and any(value.is_meta for value in variant.parameters()):
        with contextlib.suppress(TraceError), torch.no_grad():
            call = flatten_call((), example.kwargs, rewritten.parameters)
            call = dataclasses.replace(call, inputs=tuple(_on_cpu(value) for value in call.inputs))
            return readable_source(rewritten.rewritten_graph(variant, call)[0])
    if rewritten.first_source is None and example is not None:
        _trace_example(variant, rewritten, flatten_call((), example.kwargs, rewritten.parameters))
    if rewritten.first_source is None:
        fact = why_no_call(variant) if example is None else f"{type(variant).__name__} can't be traced whole"
        raise RefusedError(f"{fact}; its graph is known once it has run")
    return rewritten.first_source


def _on_cpu(value: Any) -> Any:
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value


@functools.cache
def variant_class(original: type[nn.Module]) -> type[nn.Module]:
    """A subclass of the original's class with its name, whose forward runs rewritten graphs.

    The decorators of the original forward run on every call, around the graph.

    Raises:
        TraceError: a decorator of the forward can't be rebuilt.
    """

    @functools.wraps(innermost(original.forward))
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        rewritten: RewrittenForward | WindowedForward = self.__dict__[ATTRIBUTE]
        return rewritten.run(self, args, kwargs)

    @functools.wraps(original.__init__)  # whose arguments are those of a config
    def become_original(self: Any, *args: Any, **kwargs: Any) -> None:
        """A new object (`from_config` of a variant's class, as diffusers' EMAModel makes one) is an original."""
        self.__class__ = original
        self.__init__(*args, **kwargs)

    members = {
        "__init__": become_original,
        "forward": rewrap(original.forward, forward),
        "save_pretrained": _refuse_to_save,
    }
    return subclass_of_same_name(original, members, variant_class)


def _refuse_to_save(self: nn.Module, *_args: Any, **_kwargs: Any) -> NoReturn:
    raise RefusedError(
        f"this {type(self).__name__} runs a rewritten graph; saved as it is, it would load with random weights in the "
        "gaps. `surgery compile SPEC --to checkpoint --out DIR` writes a model that from_pretrained loads, --to graph "
        "a folder that surgery.load_variant(DIR) loads"
    )


def _trace_example(variant: nn.Module, rewritten: RewrittenForward, call: FlatCall) -> None:
    """Trace a variant before its first run; what can't be traced whole waits for that."""
    with contextlib.suppress(TraceError), torch.no_grad():
        rewritten.trace(variant, call, is_example=True)


def _rebind_forward(variant: nn.Module, original_class: type[nn.Module]) -> None:
    """Instance attributes that hold the original class's forward (accelerate's `_old_forward`) get the variant's."""
    for name, value in list(variant.__dict__.items()):
        if inspect.ismethod(value) and value.__func__ is original_class.forward:
            variant.__dict__[name] = type(variant).forward.__get__(variant)


def _replace_components(variant: nn.Module, plan: Plan, anatomy: Anatomy, means: Means) -> None:
    for replaced in plan.replacements:
        if replaced.index in plan.schedule(replaced.stack).removed:
            continue
        parent, _, name = replaced.path.rpartition(".")
        variant.get_submodule(parent).add_module(name, stand_in_for(replaced, variant, anatomy, means))
