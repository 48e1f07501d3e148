"""A spec on a live model: `surgery.apply(pipe_or_transformer, spec)`."""

import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from torch import nn

from surgery.anatomy.anatomy import Anatomy
from surgery.errors import InputError
from surgery.graph.traces import MAX_TRACES, Traces
from surgery.graph.transformer_variants import OfOne, TransformerVariants
from surgery.graph.variant import forward_of_variant
from surgery.graph.windowed_forward import WindowedForward
from surgery.graph.windowed_pipeline import tell_windows_
from surgery.plan.paired import ModelPlan, PairedPlan
from surgery.plan.planned_pair import AnyPlanned, PlannedPair, plan_model
from surgery.spec.load import Spec, load_spec
from surgery.spec.selector import FIRST, SECOND

Target = TypeVar("Target", bound=Any)
Operand = Spec | AnyPlanned | ModelPlan | str | Path


def apply(target: Target, spec: Operand, *, profile: str | Path | None = None) -> Target:
    """The variant of a pipeline or a transformer under a spec (a `Spec`, the path of one, or what is planned of it).

    The result is of the same class and shares all weights with the original, which is left as it is. For a pipeline
    it is a new pipeline that shares all other components, with both transformers replaced where the spec edits the
    second of two; where the spec has windows (`when`), it tells them in which step and branch they are. `profile`
    overrides the spec's file of means.

    Raises:
        InputError: the target is neither a pipeline with a transformer nor a transformer.
        SpecError: the spec does not fit the model.
        NotYetError: the spec uses what this version does not run.
        RefusedError, TraceError: the model's forward can't be rewritten so.
    """
    return Variants(target, num_traces=0).make(spec, profile=profile)


class Variants(Generic[Target]):
    """Makes variants of one pipeline or transformer: what all of them need is read and traced once.

    `num_traces` are held for the variants that are yet to come.

    Raises:
        InputError: the target is neither a pipeline with a transformer nor a transformer.
        RefusedError: its transformer is a variant itself, or compiled, or carries hooks of diffusers.
    """

    def __init__(self, target: Target, *, num_traces: int = MAX_TRACES) -> None:
        self.target, self.num_traces = target, num_traces
        self.is_pipeline = not isinstance(target, nn.Module)
        model = getattr(target, FIRST, None) if self.is_pipeline else target
        if not isinstance(model, nn.Module) or (self.is_pipeline and not hasattr(target, "register_modules")):
            raise InputError(f"a {type(target).__name__} is neither a transformer nor a pipeline with one")
        self.first = TransformerVariants(model, Traces(num_traces))

    @cached_property
    def second(self) -> TransformerVariants | None:
        """What makes variants of the second of two transformers; None where there is one."""
        model = getattr(self.target, SECOND, None) if self.is_pipeline else None
        return TransformerVariants(model, Traces(self.num_traces)) if isinstance(model, nn.Module) else None

    def second_anatomy(self) -> Anatomy | None:
        """That of the second transformer."""
        return None if self.second is None else self.second.anatomy

    def make(self, spec: Operand, *, profile: str | Path | None = None) -> Target:
        """The variant under a spec; see `apply`."""
        if not self.is_pipeline:
            if isinstance(spec, (PlannedPair, PairedPlan)):
                raise InputError("the plan is for a pipeline with two transformers, and this is one transformer")
            return cast("Target", self.first.make(spec, profile=profile))
        edited = copy.copy(self.target)
        variants = {
            part: self.part(part).make(of_part, profile=profile)
            for part, of_part in self.operand_by_part(spec, profile).items()
        }
        edited.register_modules(**variants)
        if any(isinstance(forward_of_variant(variant), WindowedForward) for variant in variants.values()):
            tell_windows_(edited)
        return edited

    def part(self, name: str) -> TransformerVariants:
        """What makes variants of a transformer, by its name in the pipeline."""
        if name == FIRST:
            return self.first
        if self.second is None:
            raise InputError(
                f"the plan is for a pipeline with two transformers, and {type(self.target).__name__} has one here"
            )
        return self.second

    def operand_by_part(self, spec: Operand, profile: str | Path | None = None) -> dict[str, OfOne]:
        """What is applied to each transformer of the pipeline that is edited, by its name there."""
        if isinstance(spec, (str, Path)):
            spec = load_spec(spec)
        if isinstance(spec, Spec) and self.second is not None:
            spec = plan_model(spec, self.first.anatomy, self.second_anatomy, profile=profile)
        return dict(spec.by_part) if isinstance(spec, (PlannedPair, PairedPlan)) else {FIRST: spec}

    def refuse_unfit_plan(self, planned: AnyPlanned) -> None:
        """Raise what `make` would raise, as far as that is known without a call, and without building anything."""
        parts = planned.by_part if isinstance(planned, PlannedPair) else {FIRST: planned}
        for name, of_part in parts.items():
            self.part(name).refuse_unfit_plan(of_part)
