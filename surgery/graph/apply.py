"""A spec on a live model: `surgery.apply(pipe_or_transformer, spec)`."""

import copy
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from surgery.anatomy.from_model import read_anatomy
from surgery.errors import InputError, RefusedError
from surgery.graph.replace import Means
from surgery.graph.variant import build_variant, forward_of_variant, is_variant
from surgery.graph.windowed_forward import WindowedForward
from surgery.graph.windowed_pipeline import tell_windows_
from surgery.plan.invariants import check_plan
from surgery.plan.paired import ModelPlan, PairedPlan
from surgery.plan.planned import PlannedSpec, plan_spec
from surgery.plan.planned_pair import AnyPlanned, PlannedPair, plan_model
from surgery.plan.windowed import AnyPlan, plans_of
from surgery.profiles.means import MeansFile, read_means
from surgery.spec.load import Spec, load_spec
from surgery.spec.selector import FIRST, SECOND

Target = TypeVar("Target", bound=Any)
Operand = Spec | AnyPlanned | ModelPlan | str | Path
OfOne = Spec | PlannedSpec | AnyPlan | str | Path  # what is for one transformer


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
    if isinstance(target, nn.Module):
        if isinstance(spec, (PlannedPair, PairedPlan)):
            raise InputError("the plan is for a pipeline with two transformers, and this is one transformer")
        variant: Any = apply_to_transformer(target, spec, profile=profile)
        return variant
    transformer = getattr(target, "transformer", None)
    if not isinstance(transformer, nn.Module) or not hasattr(target, "register_modules"):
        raise InputError(f"a {type(target).__name__} is neither a transformer nor a pipeline with one")
    edited = copy.copy(target)
    variants = {
        part: apply_to_transformer(getattr(target, part), of_part, profile=profile)
        for part, of_part in operand_by_part(target, spec, profile=profile).items()
    }
    edited.register_modules(**variants)
    if any(isinstance(forward_of_variant(variant), WindowedForward) for variant in variants.values()):
        tell_windows_(edited)
    return edited


def operand_by_part(pipe: Any, spec: Operand, *, profile: str | Path | None = None) -> dict[str, OfOne]:
    """What is applied to each transformer of a pipeline that is edited, by its name there."""
    second = getattr(pipe, SECOND, None)
    if isinstance(spec, (str, Path)):
        spec = load_spec(spec)
    if isinstance(spec, Spec) and isinstance(second, nn.Module):
        spec = plan_model(spec, read_anatomy(pipe.transformer), lambda: read_anatomy(second), profile=profile)
    if not isinstance(spec, (PlannedPair, PairedPlan)):
        return {FIRST: spec}
    if not isinstance(second, nn.Module):
        raise InputError(f"the plan is for a pipeline with two transformers, and {type(pipe).__name__} has one here")
    return dict(spec.by_part)


def apply_to_transformer(model: nn.Module, spec: OfOne, *, profile: str | Path | None = None) -> nn.Module:
    """The variant of a transformer; see `apply`."""
    refuse_unfit(model)
    anatomy = read_anatomy(model)
    if isinstance(spec, (str, Path)):
        spec = load_spec(spec)
    if isinstance(spec, Spec):
        spec = plan_spec(spec, anatomy, profile=profile)
    if isinstance(spec, PlannedSpec):
        plan, means = spec.plan, spec.means
    else:
        plan, means = spec, None if profile is None else read_means(profile)
    for each in plans_of(plan):
        check_plan(each, anatomy)
    values = (replaced.values for each in plans_of(plan) for replaced in each.replacements)
    wanted = {digest for digest in values if digest is not None}
    if wanted - {means.digest if means is not None else None}:
        raise InputError("the plan takes its means from another file; give that file as profile")
    return build_variant(model, plan, anatomy, None if means is None else tensors_of_means(means))


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
