"""How far surgery reaches: every transformer class of diffusers, tiny, each operation against the edit by hand.

`python tests/reach.py` goes through all classes that the installed diffusers offers (or those named) and prints a
table, one row a stack: how its forward is traced, how long that takes, and for each operation `yes` (equal to the edit
by hand, to the bit; for `parallel` up to float rounding), `refused`, or what is wrong; then why what is refused is.
`known` says whence a call of the class is known: a row by hand, a row that was found, the config alone, one recorded
call, or not. `replace` is how many components were replaced as a forward hook does it by hand, to the bit, of those
that are offered; the ways to replace take turns. `--out FILE` writes it to a file, `--checkpoint` writes pruned
checkpoints as well and compares what the stock class computes with them. It ends with 1 if anything is wrong. The tests
run a sample of classes through the same code.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import diffusers
import torch
from hand_edits import NoHandEditError, find_chain, run_chain_by_hand
from replaced_by_hand import REPLACE, count_equal, offered_components
from tiny_transformers import build_transformer, read_cases, transformer_call, transformer_classes
from torch import nn

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.from_model import read_anatomy
from surgery.errors import PartialTraceWarning, SurgeryError
from surgery.graph.variant import build_variant, forward_of_variant
from surgery.pipelines.learn import keep_given
from surgery.plan.lower import lower_spec
from surgery.plan.plan import Plan
from surgery.publish.pruned_model import compile_checkpoint
from surgery.spec.load import read_spec
from surgery.tracing.arguments import flatten_call
from surgery.tracing.memo import tensors_in

TOLERANCE = 1e-5
MIN_BLOCKS = 3
OPERATIONS: Mapping[str, str] = {
    "same": 'scale: {{layers: "{s}[:]", by: 1.0}}',
    "skip": 'skip: "{s}[1]"',
    "reverse": 'reverse: "{s}[0:3]"',
    "repeat": 'repeat: {{layers: "{s}[1]", times: 2}}',
    "parallel": 'parallel: {{layers: "{s}[0:2]", loops: 2}}',
    "scale": 'scale: {{layers: "{s}[1]", by: 0.5}}',
}
CHECKPOINTS = ("skip", "repeat")


@dataclass
class Row:
    """What was found of one stack of one class; `answers` by operation, `reasons` of those that are refused."""

    class_name: str
    stack: str = ""
    known: str = ""
    traced: str = ""
    seconds: float = 0.0
    answers: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """The operations that are neither right nor refused."""
        return [name for name, answer in self.answers.items() if not is_right(answer)]

    def refuse(self, operation: str, error: Exception) -> None:
        """Note that an operation is refused, and why."""
        self.answers[operation] = "refused"
        self.reasons[operation] = str(error).strip().splitlines()[-1]


def is_right(answer: str) -> bool:
    """Whether an answer tells of what is as it should be, or refused."""
    equal, _, offered = answer.partition(" of ")
    return answer in ("yes", "refused", "no hand edit") or (offered != "" and equal == offered)


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
    rows = [_try_stack(name, model, anatomy, stack, operations) for stack in stacks]
    for row in rows:
        row.known = known
        if with_checkpoints:
            _try_checkpoints(row, model)
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


def _try_stack(name: str, model: nn.Module, anatomy: Anatomy, stack: str, operations: Collection[str]) -> Row:
    row = Row(name, stack)
    row.traced, row.seconds = _trace(model, anatomy, stack)
    for operation in operations:
        if operation == REPLACE:
            _try_replace(row, model, anatomy)
            continue
        try:
            plan = _plan(OPERATIONS[operation].format(s=stack), anatomy)
            row.answers[operation] = _compare(model, anatomy, plan, operation)
        except SurgeryError as error:
            row.refuse(operation, error)
    return row


def _try_replace(row: Row, model: nn.Module, anatomy: Anatomy) -> None:
    found = anatomy.find_stack(row.stack)
    if found is None or not offered_components(found):
        reason = "its streams are unknown" if found is None or found.streams is None else "no component is token-shaped"
        row.answers[REPLACE], row.reasons[REPLACE] = "refused", (found and found.refusal) or reason
        return
    try:
        equal, offered = count_equal(model, anatomy, found, transformer_call(row.class_name))
        row.answers[REPLACE] = f"{equal} of {offered}"
    except SurgeryError as error:
        row.refuse(REPLACE, error)


def _plan(written: str, anatomy: Anatomy) -> Plan:
    return lower_spec(read_spec(f"surgery: v1\noperations:\n  - {written}\n"), anatomy)


@torch.no_grad()
def _trace(model: nn.Module, anatomy: Anatomy, stack: str) -> tuple[str, float]:
    """How a class's forward is traced, and the seconds that its whole trace takes."""
    variant = build_variant(model, _plan(OPERATIONS["same"].format(s=stack), anatomy), anatomy)
    rewritten = forward_of_variant(variant)
    call = flatten_call((), transformer_call(type(model).__name__), rewritten.parameters)
    start = time.perf_counter()
    try:
        rewritten.rewritten_graph(variant, call)
    except SurgeryError:
        with warnings.catch_warnings(record=True) as seen, contextlib.suppress(SurgeryError):
            warnings.simplefilter("always")
            variant(**transformer_call(type(model).__name__))
            in_part = any(issubclass(warning.category, PartialTraceWarning) for warning in seen)
            return "in part" if in_part else "whole, on contents", time.perf_counter() - start
        return "refused", time.perf_counter() - start
    return "whole", time.perf_counter() - start


@torch.no_grad()
def _compare(model: nn.Module, anatomy: Anatomy, plan: Plan, operation: str) -> str:
    """Whether a variant computes what the edit by hand does; raises SurgeryError where it is refused."""
    variant = build_variant(model, plan, anatomy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = tensors_in(variant(**transformer_call(type(model).__name__)))
    original = tensors_in(model(**transformer_call(type(model).__name__)))
    if operation == "same":
        return _judge(got, original, exact=True)
    try:
        edited = next(schedule for schedule in plan.schedules if not schedule.is_identity)
        chain = find_chain(model, edited.stack, transformer_call(type(model).__name__))
        expected = tensors_in(run_chain_by_hand(model, chain, edited, transformer_call(type(model).__name__)))
    except NoHandEditError:
        return "no hand edit"
    if all(torch.equal(one, other) for one, other in zip(expected, original, strict=True)):
        return "without effect"
    return _judge(got, expected, exact=operation != "parallel")


def _judge(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], *, exact: bool) -> str:
    pairs = list(zip(got, expected, strict=True))
    if all(torch.equal(one, other) for one, other in pairs):
        return "yes"
    error = max(float((one.double() - other.double()).norm() / other.double().norm()) for one, other in pairs)
    return "yes" if not exact and error < TOLERANCE else f"off by {error:.1e}"


def _try_checkpoints(row: Row, model: nn.Module) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        model.save_pretrained(folder / "model")
        for operation in CHECKPOINTS:
            column = f"{operation} on disk"
            spec = folder / f"{operation}.yaml"
            written = OPERATIONS[operation].format(s=row.stack)
            spec.write_text(f"surgery: v1\nmodel: {folder / 'model'}\noperations:\n  - {written}\n")
            try:
                out = compile_checkpoint(spec, folder / operation)
                row.answers[column] = _compare_checkpoint(model, out, _plan(written, read_anatomy(model)))
            except SurgeryError as error:
                row.refuse(column, error)


@torch.no_grad()
def _compare_checkpoint(model: nn.Module, out: Path, plan: Plan) -> str:
    name = type(model).__name__
    pruned = getattr(diffusers, name).from_pretrained(out).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = tensors_in(build_variant(model, plan, read_anatomy(model))(**transformer_call(name)))
    return _judge(tensors_in(pruned(**transformer_call(name))), expected, exact=True)


def table_of(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the table, then the reasons, then the counts."""
    columns = list(dict.fromkeys(column for row in rows for column in row.answers))
    yield "| class | stack | known | traced | s | " + " | ".join(columns) + " |"
    yield "|" + "---|" * (5 + len(columns))
    for row in rows:
        answers = " | ".join(row.answers.get(column, "") for column in columns)
        yield f"| {row.class_name} | {row.stack} | {row.known} | {row.traced} | {row.seconds:.2f} | {answers} |"
    yield ""
    for row in rows:
        for reason in dict.fromkeys(row.reasons.values()):
            named = ", ".join(operation for operation, said in row.reasons.items() if said == reason)
            yield f"{row.class_name} {row.stack}: {named}: {reason}"
    classes = dict.fromkeys(row.class_name for row in rows)
    whole = {row.class_name for row in rows if row.traced.startswith("whole")}
    right = [
        name
        for name in classes
        if all(
            row.answers and {row.answers.get(operation) for operation in OPERATIONS} == {"yes"}
            for row in rows
            if row.class_name == name
        )
    ]
    wrong = [row.class_name for row in rows if row.faults]
    yield ""
    yield f"{len(classes)} classes: {len(whole)} traced whole, {len(right)} with all operations of all stacks equal"
    replaced = {row.class_name for row in rows if " of " in row.answers.get(REPLACE, "") and REPLACE not in row.faults}
    yield f"{len(replaced)} classes with components that can be replaced"
    yield ", ".join(
        f"{said}: {count}" for said, count in Counter({r.class_name: r.known for r in rows}.values()).items()
    )
    yield f"wrong: {', '.join(dict.fromkeys(wrong)) or 'none'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classes", nargs="*", default=list(transformer_classes()), help="default: all")
    parser.add_argument("--checkpoint", action="store_true", help="write pruned checkpoints, too")
    parser.add_argument("--out", type=Path, help="write the table to this file")
    chosen = parser.parse_args(arguments)
    diffusers.logging.set_verbosity_error()
    os.environ["SURGERY_CACHE"] = tempfile.mkdtemp()  # what is known is found anew
    rows: list[Row] = []
    for name in chosen.classes:
        try:
            rows += try_class(name, learns=True, with_checkpoints=chosen.checkpoint)
        except Exception as error:  # the others are tried all the same
            rows.append(
                Row(name, traced="fell over", answers={"same": f"{type(error).__name__}: {error}".splitlines()[0]})
            )
        print(name, file=sys.stderr, flush=True)
    text = "\n".join(table_of(rows)) + "\n"
    if chosen.out is not None:
        chosen.out.write_text(text)
    print(text)
    return int(any(row.faults for row in rows))


if __name__ == "__main__":
    sys.exit(main())
