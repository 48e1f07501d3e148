"""How far surgery reaches: every transformer class of diffusers, tiny, each operation against the edit by hand.

`python tests/reach.py` goes through all classes that the installed diffusers offers (or those named) and prints what
`make reach` writes to `docs/reach.md`, where it says what the columns are. The ways to replace take turns. `--out FILE`
writes to a file, class by class; `--checkpoint` writes pruned checkpoints as well and compares what the stock class
computes with them. It ends with 1 if anything is wrong. The tests run a sample of classes through the same code.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import diffusers
import torch
from hand_edits import NoHandEditError, find_chain, run_chain_by_hand
from reach_page import REPLACE, SAME, Row, page_of, rows_of
from replaced_by_hand import count_equal, offered_components
from rounds_by_hand import run_rounds_by_hand
from tiny_transformers import build_transformer, read_cases, transformer_call, transformer_classes
from torch import nn

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.from_model import read_anatomy
from surgery.errors import PartialTraceWarning, SurgeryError
from surgery.graph.variant import build_variant, forward_of_variant
from surgery.pipelines.learn import keep_given
from surgery.plan.lower import lower_spec
from surgery.plan.plan import Plan
from surgery.plan.schedule import Schedule
from surgery.publish.pruned_model import compile_checkpoint
from surgery.spec.load import read_spec
from surgery.tracing.arguments import flatten_call
from surgery.tracing.memo import tensors_in

TOLERANCE = 1e-5
MIN_BLOCKS = 3
OPERATIONS: Mapping[str, str] = {
    SAME: "",  # nothing is edited
    "skip": 'skip: "{s}[1]"',
    "reverse": 'reverse: "{s}[0:3]"',
    "repeat": 'repeat: {{layers: "{s}[1]", times: 2}}',
    "parallel": 'parallel: {{layers: "{s}[0:2]", loops: 2}}',
    "scale": 'scale: {{layers: "{s}[1]", by: 0.5}}',
}
CHECKPOINTS = ("skip", "repeat")


def try_class(
    name: str,
    *,
    operations: Collection[str] = (*OPERATIONS, REPLACE),
    learns: bool = False,
    with_checkpoints: bool = False,
) -> list[Row]:
    """The rows of a class: of each of its stacks with three blocks or more that its forward runs.

    With `learns` a call of it is recorded where its config does not do to know one.
    """
    if name not in read_cases():
        return [Row(name, traced="no tiny model")]
    model = build_transformer(name)
    known, anatomy = _learn(model) if learns else ("", read_anatomy(model))
    stacks = [stack.name for stack in anatomy.stacks if stack.num_blocks >= MIN_BLOCKS and _is_run(model, stack.name)]
    traced, seconds = _trace(model, anatomy)
    rows = [Row(name, stack, known, traced, seconds) for stack in stacks]
    for row in rows:
        _try_stack(row, model, anatomy, operations)
        if with_checkpoints:
            _try_checkpoints(row, model, anatomy)
    return rows or [Row(name, traced="no stack of three blocks that it runs")]


def _learn(model: nn.Module) -> tuple[str, Anatomy]:
    """Whence a call of a model is known, and its anatomy; after one call where its config does not do."""
    anatomy = read_anatomy(model)
    if anatomy.example:
        return anatomy.known_from, anatomy
    with contextlib.suppress(SurgeryError):
        keep_given(model, (), transformer_call(type(model).__name__))
    anatomy = read_anatomy(model)
    return ("one call" if anatomy.example else "no"), anatomy


@torch.no_grad()
def _is_run(model: nn.Module, stack: str) -> bool:
    called: list[nn.Module] = []
    handle = model.get_submodule(f"{stack}.0").register_forward_pre_hook(lambda block, _: called.append(block))
    model(**transformer_call(type(model).__name__))
    handle.remove()
    return bool(called)


def _try_stack(row: Row, model: nn.Module, anatomy: Anatomy, operations: Collection[str]) -> None:
    for operation in operations:
        if operation == REPLACE:
            _try_replace(row, model, anatomy)
            continue
        try:
            plan = _plan(operation, row.stack, anatomy)
            row.answers[operation] = _compare(model, anatomy, plan, operation)
        except SurgeryError as error:
            row.refuse(operation, str(error))


def _try_replace(row: Row, model: nn.Module, anatomy: Anatomy) -> None:
    found = anatomy.find_stack(row.stack)
    if found is None or not offered_components(found):
        reason = "its streams are unknown" if found is None or found.streams is None else "no component is token-shaped"
        row.refuse(REPLACE, (found and found.refusal) or reason)
        return
    try:
        equal, offered = count_equal(model, anatomy, found, transformer_call(row.class_name))
        row.answers[REPLACE] = f"{equal} of {offered}"
    except SurgeryError as error:
        row.refuse(REPLACE, str(error))


def _plan(operation: str, stack: str, anatomy: Anatomy) -> Plan:
    return lower_spec(read_spec(_spec_of(operation, stack)), anatomy)


def _spec_of(operation: str, stack: str) -> str:
    return f"surgery: v1\noperations: [{OPERATIONS[operation].format(s=stack)}]\n"


@torch.no_grad()
def _trace(model: nn.Module, anatomy: Anatomy) -> tuple[str, float]:
    """How the forward of a model is traced where nothing is edited, and the seconds that it takes."""
    variant = build_variant(model, _plan(SAME, "", anatomy), anatomy)
    rewritten = forward_of_variant(variant)
    call = flatten_call((), transformer_call(type(model).__name__), rewritten.parameters)
    start = time.perf_counter()
    try:
        rewritten.rewritten_graph(variant, call)
    except SurgeryError:
        return _trace_at_run(variant), time.perf_counter() - start
    return "whole", time.perf_counter() - start


def _trace_at_run(variant: nn.Module) -> str:
    """How a forward is traced that can't be before it has run."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            variant(**transformer_call(type(variant).__name__))
        except SurgeryError:
            return "refused"
    in_part = any(issubclass(warning.category, PartialTraceWarning) for warning in seen)
    return "in part" if in_part else "whole, on contents"


@torch.no_grad()
def _compare(model: nn.Module, anatomy: Anatomy, plan: Plan, operation: str) -> str:
    """Whether a variant computes what the edit by hand does; raises SurgeryError where it is refused."""
    variant = build_variant(model, plan, anatomy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = tensors_in(variant(**transformer_call(type(model).__name__)))
    original = tensors_in(model(**transformer_call(type(model).__name__)))
    if operation == SAME:
        return _judge(got, original, exact=True)
    edited = next(schedule for schedule in plan.schedules if not schedule.is_identity)
    try:
        expected = _edited_by_hand(model, edited)
    except NoHandEditError:
        return "no hand edit"
    if all(torch.equal(one, other) for one, other in zip(expected, original, strict=True)):
        return "without effect"
    return _judge(got, expected, exact=operation != "parallel")


def _edited_by_hand(model: nn.Module, schedule: Schedule) -> list[torch.Tensor]:
    name = type(model).__name__
    try:
        chain = find_chain(model, schedule.stack, transformer_call(name))
    except NoHandEditError:
        return tensors_in(run_rounds_by_hand(model, schedule, transformer_call(name)))
    return tensors_in(run_chain_by_hand(model, chain, schedule, transformer_call(name)))


def _judge(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], *, exact: bool) -> str:
    pairs = list(zip(got, expected, strict=True))
    if all(torch.equal(one, other) for one, other in pairs):
        return "yes"
    error = max(float((one.double() - other.double()).norm() / other.double().norm()) for one, other in pairs)
    return "yes" if not exact and error < TOLERANCE else f"off by {error:.1e}"


def _try_checkpoints(row: Row, model: nn.Module, anatomy: Anatomy) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        model.save_pretrained(folder / "model")
        for operation in CHECKPOINTS:
            column = f"{operation} on disk"
            spec = folder / f"{operation}.yaml"
            spec.write_text(_spec_of(operation, row.stack))
            try:
                out = compile_checkpoint(spec, folder / operation, model=str(folder / "model"))
                row.answers[column] = _compare_checkpoint(model, out, _plan(operation, row.stack, anatomy), anatomy)
            except SurgeryError as error:
                row.refuse(column, str(error))


@torch.no_grad()
def _compare_checkpoint(model: nn.Module, out: Path, plan: Plan, anatomy: Anatomy) -> str:
    name = type(model).__name__
    pruned = getattr(diffusers, name).from_pretrained(out).eval()
    for value in pruned.parameters():  # as they lie in a file they may be unaligned, and kernels round otherwise
        value.data = value.data.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = tensors_in(build_variant(model, plan, anatomy)(**transformer_call(name)))
    return _judge(tensors_in(pruned(**transformer_call(name))), expected, exact=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classes", nargs="*", default=list(transformer_classes()), help="default: all")
    parser.add_argument("--checkpoint", action="store_true", help="write pruned checkpoints, too")
    parser.add_argument("--out", type=Path, help="write the table to this file")
    parser.add_argument("--update", action="store_true", help="keep what --out says of other classes")
    chosen = parser.parse_args(arguments)
    diffusers.logging.set_verbosity_error()
    os.environ["SURGERY_CACHE"] = tempfile.mkdtemp()  # what is known is found anew
    kept = rows_of(chosen.out.read_text()) if chosen.update else []
    rows = [row for row in kept if row.class_name not in chosen.classes]
    for name in chosen.classes:
        try:
            rows += try_class(name, learns=True, with_checkpoints=chosen.checkpoint)
        except Exception as error:  # the others are tried all the same
            rows.append(
                Row(name, traced="fell over", answers={SAME: f"{type(error).__name__}: {error}".splitlines()[0]})
            )
        print(name, file=sys.stderr, flush=True)
        if chosen.out is not None:  # what is known so far
            chosen.out.write_text(page_of(sorted(rows, key=lambda row: row.class_name)))
    print(page_of(rows))
    return int(any(row.faults for row in rows))


if __name__ == "__main__":
    sys.exit(main())
