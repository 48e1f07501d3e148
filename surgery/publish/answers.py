"""What the process that may load torch is asked: what a pruned checkpoint holds, and whether a written one is right."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.identity import identify
from surgery.anatomy.sources import (
    ModelSource,
    anatomy_of_source,
    build_on_meta,
    source_from_json,
    weights_of_source,
)
from surgery.checkpoint.compile_plan import Layers, compile_plan, fields_of_plan, fit_plan, orders_of
from surgery.checkpoint.file_layout import stock_layout
from surgery.checkpoint.fitted_blocks import NO_FOLDS
from surgery.checkpoint.new_checkpoint import NewCheckpoint
from surgery.checkpoint.unrolled import OTHER_BACKEND, unroll_plan
from surgery.errors import InputError, RefusedError
from surgery.plan.plan import Plan, plan_from_json
from surgery.tracing.example_inputs import has_example_inputs
from surgery.verify.full import check_fully
from surgery.verify.numeric import build_small, check_numerically, folds_of_plan
from surgery.verify.structure import check_structure

Verify = Literal["structure", "numeric", "full"]


def answer(question: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a question; both are plain data, so that they can go from process to process.

    Raises:
        SurgeryError: as the functions below say.
    """
    source = source_from_json(about["source"])
    started = time.perf_counter()
    match question:
        case "compile_plan":
            found = _compile(source, plan_from_json(about["plan"]), about["variant"], about["verify"])
        case "fit":
            found = _fit(source, plan_from_json(about["plan"]))
        case "structure":
            weights = weights_of_source(source, variant=about["variant"])
            found = {"num_tensors": check_structure(source, weights, about["extra"])}
        case "full":
            means = None if about["means"] is None else Path(about["means"])
            original = source_from_json(about["original"])
            found = check_fully(original, source, plan_from_json(about["plan"]), means, about["variant"]).to_json()
        case _:
            raise ValueError(f"{question!r} is no question")
    return {**found, "seconds": time.perf_counter() - started}


def _compile(source: ModelSource, plan: Plan, variant: str | None, verify: Verify) -> dict[str, Any]:
    """What the checkpoint holds; whether graph and checkpoint agree on a shrunken model; what the original is."""
    import diffusers
    import torch

    weights = weights_of_source(source, variant=variant)
    if source.file is None:  # before what takes longer
        stock_layout(weights, {name: tuple(value.shape) for name, value in build_on_meta(source).state_dict().items()})
    anatomy = anatomy_of_source(source)
    layers = unroll_plan(plan, anatomy)
    _refuse_unseen_numbers(anatomy, plan, verify)
    is_run = verify == "numeric" or _needs_folds(plan, layers)
    if is_run:
        _refuse_unknown_class(source, anatomy.trace_failure)
    agreement = None
    with ThreadPoolExecutor(max_workers=1) as pool:
        identity = pool.submit(identify, source)  # it reads all weights
        if is_run:
            small = build_small(source)
            fields, folds = fields_of_plan(small.source, layers), folds_of_plan(small, plan, layers)
            if verify == "numeric":
                agreement = check_numerically(small, plan, layers, fields, folds).to_json()
        else:
            fields, folds = fields_of_plan(source, layers), NO_FOLDS
        new = compile_plan(source, weights, layers, fields, folds)
        return {
            "new": new.to_json(),
            "orders": orders_of(layers),
            "agreement": agreement,
            "identity": identity.result().to_json(),
            "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        }


def _fit(source: ModelSource, plan: Plan) -> dict[str, Any]:
    """The tensors that the stock class needs to run a plan, by its own names: no file of weights is read.

    With them the layers of each stack in their new order, and the shapes of all tensors of the original.
    """
    layers = unroll_plan(plan, anatomy_of_source(source))
    fields, folds = fields_of_plan(source, layers), NO_FOLDS
    if _needs_folds(plan, layers):
        folds = folds_of_plan(build_small(source), plan, layers)
    fitted = fit_plan(source, layers, fields, folds)
    shapes = {name: list(value.shape) for name, value in fitted.original.state_dict().items()}
    return NewCheckpoint(fitted.config, fitted.tensors).to_json() | {"orders": dict(fitted.orders), "shapes": shapes}


def _needs_folds(plan: Plan, layers: Layers) -> bool:
    return bool(plan.replacements) or any(layer.scale != 1 for written in layers.values() for layer in written)


def _refuse_unseen_numbers(anatomy: Anatomy, plan: Plan, verify: Verify) -> None:
    """Raise RefusedError where a forward is known to go by a block's number and nothing is to be run."""
    named = [stack.name for stack in anatomy.stacks if stack.own_context]
    if verify == "structure" and named and not all(schedule.is_identity for schedule in plan.schedules):
        raise RefusedError(
            f"the forward of {plan.class_name} goes by the numbers of the blocks of {', '.join(named)}, which the "
            "structure of files does not show; give --verify numeric"
        )


def _refuse_unknown_class(source: ModelSource, trace_failure: str | None) -> None:
    if not has_example_inputs(source.class_name):
        raise RefusedError(
            f"graph and checkpoint can't be compared: there are no example inputs for {source.class_name}; with "
            f"--verify structure layers can be skipped, repeated and moved all the same, but then nothing says whether "
            f"the forward depends on a block's number; {OTHER_BACKEND}"
        )
    if trace_failure is not None:
        raise InputError(f"graph and checkpoint can't be compared: {trace_failure}; give --verify structure")
