"""What the process that may load torch is asked: what a pruned checkpoint holds, and whether a written one is right."""

import time
from collections.abc import Mapping, Sequence
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
from surgery.checkpoint.config_fields import ConfigFields
from surgery.checkpoint.file_layout import stock_layout
from surgery.checkpoint.fitted_blocks import NO_FOLDS, Folds
from surgery.checkpoint.new_checkpoint import Misfit, NewCheckpoint, describe_misfits
from surgery.checkpoint.unrolled import OTHER_BACKEND, unroll_plan
from surgery.errors import InputError, RefusedError
from surgery.plan.backends import moved_stacks, reads_of_moved
from surgery.plan.plan import Plan, plan_from_json
from surgery.tracing.stack_code import use_of_numbers
from surgery.verify.agreement import Agreement
from surgery.verify.full import check_fully
from surgery.verify.numeric import SmallModel, build_small, check_numerically, folds_of_plan
from surgery.verify.structure import check_structure

Verify = Literal["none", "structure", "numeric", "full"]


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
    is_run = verify == "numeric" or _needs_folds(plan, layers)
    if is_run:
        _refuse_unknown_class(anatomy)
    small, folds, agreement = None, NO_FOLDS, None
    with ThreadPoolExecutor(max_workers=1) as pool:
        identity = pool.submit(identify, source)  # it reads all weights
        if is_run:
            small = build_small(source)
            fields, folds = fields_of_plan(small.source, layers), folds_of_plan(small, plan, layers)
        else:
            fields = fields_of_plan(source, layers)
        new = compile_plan(source, weights, layers, fields, folds)
        if verify == "structure":
            _refuse_unseen_numbers(source, anatomy, plan, fields)
        if verify == "numeric" or (verify == "structure" and new.misfits):
            agreement = _compare(source, small, plan, layers, fields, folds, new.misfits)
        return {
            "new": new.to_json(),
            "orders": orders_of(layers),
            "agreement": None if agreement is None else agreement.to_json(),
            "identity": identity.result().to_json(),
            "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        }


def _compare(
    source: ModelSource,
    small: SmallModel | None,
    plan: Plan,
    layers: Layers,
    fields: ConfigFields,
    folds: Folds,
    misfits: Sequence[Misfit],
) -> Agreement:
    """Graph and checkpoint on a shrunken model: whether they agree, even where blocks do not come whole.

    Raises:
        RefusedError: they do not, or it can't be tried.
    """
    anatomy = anatomy_of_source(source)
    if not anatomy.has_example_inputs:
        raise RefusedError(
            f"{describe_misfits(misfits)}; whether its forward needs that can't be tried: {anatomy.why_no_inputs}; "
            "leave the block where blocks of its kind stand, or give --verify none, which writes it all the same; "
            f"{OTHER_BACKEND}"
        )
    try:
        return check_numerically(small or build_small(source), plan, layers, fields, folds)
    except RefusedError as error:
        raise RefusedError(f"{error}\n{describe_misfits(misfits)}" if misfits else str(error)) from None


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


def _refuse_unseen_numbers(source: ModelSource, anatomy: Anatomy, plan: Plan, fields: ConfigFields) -> None:
    """Raise RefusedError where a forward goes by a block's number, or may do so, and nothing is to be run."""
    moved = moved_stacks(plan, anatomy)
    named = [stack.name for stack in moved if stack.by_number]
    if named:
        raise RefusedError(
            f"the forward of {plan.class_name} goes by the numbers of the blocks of {', '.join(named)}, which the "
            "structure of files does not show; give --verify numeric"
        )
    for read in reads_of_moved(plan, anatomy):
        raise RefusedError(f"{read}, which the structure of files does not show; give --verify numeric")
    for stack in moved:
        if stack.streams is None:
            use = use_of_numbers(build_on_meta(source), stack.name, tuple(fields.counts.values()))
            if use is not None:
                raise RefusedError(
                    f"whether the forward of {plan.class_name} goes by the numbers of the blocks in {stack.name} can't "
                    f"be tried, and it may: {use}; --verify none writes the files all the same; {OTHER_BACKEND}"
                )


def _refuse_unknown_class(anatomy: Anatomy) -> None:
    if not anatomy.has_example_inputs:
        raise RefusedError(
            f"graph and checkpoint can't be compared: {anatomy.why_no_inputs}; with "
            "--verify structure layers can be skipped, repeated and moved where the code of its forward runs them one "
            f"after the other and no more, as far as that can be read; {OTHER_BACKEND}"
        )
    if anatomy.trace_failure is not None:
        raise InputError(f"graph and checkpoint can't be compared: {anatomy.trace_failure}; give --verify structure")
