"""Variants of one transformer that are made together: what all of them need is read and traced once."""

import contextlib
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.from_model import read_anatomy
from surgery.errors import InputError, RefusedError, TraceError
from surgery.graph.removed_blocks import RemovedBlocks
from surgery.graph.replace import Means
from surgery.graph.rewrite import rewrite_graph
from surgery.graph.traces import Traces, edited_stacks
from surgery.graph.variant import build_variant, is_variant
from surgery.plan.invariants import check_plan
from surgery.plan.planned import PlannedSpec, plan_spec
from surgery.plan.windowed import AnyPlan, plans_of
from surgery.profiles.means import MeansFile, read_means
from surgery.spec.load import Spec, load_spec
from surgery.tracing.arguments import flatten_call, parameters_of
from surgery.tracing.own_objects import names_of_objects
from surgery.tracing.wrappers import innermost

OfOne = Spec | PlannedSpec | AnyPlan | str | Path  # what is for one transformer


class TransformerVariants:
    """Makes variants of one transformer, which is left as it is.

    Raises:
        RefusedError: it is a variant itself, or compiled, or carries hooks of diffusers.
    """

    def __init__(self, model: nn.Module, traces: Traces | None = None) -> None:
        refuse_unfit(model)
        self.model = model
        self.traces = traces or Traces()

    @cached_property
    def anatomy(self) -> Anatomy:
        """That of the transformer."""
        return read_anatomy(self.model)

    @cached_property
    def intact(self) -> RemovedBlocks:
        """How the class's own model is made: no block is missing."""
        return RemovedBlocks(self.model, ())

    @cached_property
    def objects(self) -> tuple[str, ...]:
        """The attributes in which the model holds plain objects."""
        return names_of_objects(self.model)

    def make(self, spec: OfOne, *, profile: str | Path | None = None) -> nn.Module:
        """The variant under a spec; see `apply`."""
        if isinstance(spec, (str, Path)):
            spec = load_spec(spec)
        if isinstance(spec, Spec):
            spec = plan_spec(spec, self.anatomy, profile=profile)
        if isinstance(spec, PlannedSpec):
            plan, means = spec.plan, spec.means
        else:
            plan, means = spec, None if profile is None else read_means(profile)
        self.check(plan, means)
        tensors = None if means is None else tensors_of_means(means)
        return build_variant(self.model, plan, self.anatomy, tensors, self.traces)

    def refuse_unfit_plan(self, planned: PlannedSpec) -> None:
        """Raise what `make` would raise, as far as that is known without a call, and without building anything."""
        self.check(planned.plan, planned.means)
        example = self.traces.example(self.model)
        if example is None:
            return
        call = flatten_call((), example.kwargs, parameters_of(innermost(type(self.model).forward)))
        for plan in plans_of(planned.plan):
            with contextlib.suppress(TraceError), torch.no_grad():
                traced = self.traces.trace(self.model, self.intact, call, self.objects, edited_stacks(plan))
                rewrite_graph(traced.graph, traced.model, {schedule.stack: schedule for schedule in plan.schedules})

    def check(self, plan: AnyPlan, means: MeansFile | None) -> None:
        """Raise InputError for a plan whose means are those of another file."""
        for each in plans_of(plan):
            check_plan(each, self.anatomy)
        values = (replaced.values for each in plans_of(plan) for replaced in each.replacements)
        wanted = {digest for digest in values if digest is not None}
        if wanted - {means.digest if means is not None else None}:
            raise InputError("the plan takes its means from another file; give that file as profile")


def refuse_unfit(model: nn.Module) -> None:
    """Raise RefusedError for a model that is no plain original: a variant, a compiled or a hooked model."""
    from accelerate.utils import is_compiled_module
    from diffusers.hooks import HookRegistry

    if is_variant(model):
        raise RefusedError("this model is a variant already; apply the spec to the original, or join the two specs")
    if is_compiled_module(model):
        raise RefusedError("this model is compiled; apply the spec to the original, then compile the variant")
    for name, module in model.named_modules():
        if any(isinstance(value, HookRegistry) and value.hooks for value in vars(module).values()):
            raise RefusedError(
                f"{name or 'the model'} carries hooks of diffusers (offload, casting or a cache), which hold on to the "
                "original; apply the spec first, then enable them on the variant"
            )


def tensors_of_means(means: MeansFile) -> Means:
    """The vectors of a file of means as tensors, float64."""
    return {
        component: {stream: torch.from_numpy(vector) for stream, vector in streams.items()}
        for component, streams in means.vectors.items()
    }
