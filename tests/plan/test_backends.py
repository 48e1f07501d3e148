"""Which backend can express a plan, and why not."""

import dataclasses
import re

import pytest

from surgery.anatomy.from_model import read_anatomy
from surgery.plan.backends import judge_backends
from surgery.plan.lower import lower_spec
from surgery.spec.load import read_spec
from surgery.testing import build_tiny_model


def judge(anatomy, *operations):
    lines = "".join(f"  - {operation}\n" for operation in operations)
    spec = read_spec(f"surgery: v1\noperations:\n{lines}" if operations else "surgery: v1\noperations: []\n")
    graph, checkpoint = judge_backends(lower_spec(spec, anatomy), anatomy)
    assert (graph.backend, checkpoint.backend) == ("graph", "checkpoint")
    assert (checkpoint.answer == "yes") == (not checkpoint.reasons)
    return graph, checkpoint


@pytest.mark.parametrize(
    "operation",
    [
        "skip: transformer_blocks[3:9]",
        "reverse: transformer_blocks[3:9]",
        "shuffle: transformer_blocks[:]",
        'repeat: {layers: "transformer_blocks[3:5]", times: 3}',
        "order: {stack: transformer_blocks, as: [3, 3, 1]}",
    ],
)
def test_what_a_stock_class_can_say_both_backends_can(anatomies, operation):
    assert [verdict.answer for verdict in judge(anatomies["pixart"], operation)] == ["yes", "yes"]


def test_no_operation_is_no_question(anatomies):
    for anatomy in anatomies.values():
        assert [verdict.answer for verdict in judge(anatomy)] == ["yes", "yes"]


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ("parallel: transformer_blocks[3:6]", r"transformer_blocks\[3:6\] run in parallel"),
        ("parallel: {layers: 'transformer_blocks[3:6]', loops: 3}", "run in parallel"),
        ("replace: {component: 'transformer_blocks[2].ff', with: input}", "no weights turn ff into its input"),
        ("replace: {component: 'transformer_blocks[2].ff', with: channel_mean}", "mean of its input over channels"),
    ],
)
def test_what_a_stock_class_cannot_say_is_refused_with_the_reason(anatomies, operation, reason):
    graph, checkpoint = judge(anatomies["pixart"], operation)
    assert (graph.answer, checkpoint.answer) == ("yes", "no")
    assert len(checkpoint.reasons) == 1
    match_reason(checkpoint.reasons[0], reason)


def match_reason(text, pattern):
    assert re.search(pattern, text), text


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ("scale: {layers: 'transformer_blocks[2]', by: 0.5}", r"transformer_blocks\[2\] are scaled"),
        ("replace: {component: 'transformer_blocks[2].ff', with: zero}", "ff = zero needs weights at its end"),
        ("skip: transformer_blocks[:]", "no layer left"),
    ],
)
def test_what_hangs_on_the_weights_is_said_to(anatomies, operation, reason):
    graph, checkpoint = judge(anatomies["pixart"], operation)
    assert (graph.answer, checkpoint.answer) == ("yes", "perhaps")
    match_reason(checkpoint.reasons[0], reason)


def test_the_worst_answer_counts_and_only_its_reasons_are_given(anatomies):
    checkpoint = judge(
        anatomies["pixart"], "scale: {layers: 'transformer_blocks[2]', by: 0.5}", "parallel: transformer_blocks[3:6]"
    )[1]
    assert checkpoint.answer == "no"
    assert len(checkpoint.reasons) == 1


def test_a_last_block_of_another_kind_may_stay_last_and_is_doubtful_when_dropped(anatomies):
    assert judge(anatomies["sd3"], "skip: transformer_blocks[3]")[1].answer == "yes"
    assert judge(anatomies["sd3"], "reverse: transformer_blocks[0:23]")[1].answer == "yes"
    dropped = judge(anatomies["sd3"], "skip: transformer_blocks[23]")[1]
    assert dropped.answer == "perhaps"
    match_reason(dropped.reasons[0], r"transformer_blocks\[22\] becomes the last block")


def test_blocks_of_several_kinds_must_be_listed_by_the_config():
    anatomy = read_anatomy(build_tiny_model("sd3-dual"))
    verdict = judge(anatomy, "skip: transformer_blocks[0]")[1]
    assert verdict.answer == "perhaps"
    match_reason(verdict.reasons[0], "several kinds")


def test_a_forward_that_counts_its_blocks_is_found_in_its_graph():
    """Chroma picks a block's modulations by its number; PixArt gives all blocks the same."""
    chroma = read_anatomy(build_tiny_model("chroma"))
    assert [stack.own_context for stack in chroma.stacks] == [("temb",), ("temb",)]
    graph, checkpoint = judge(chroma, "skip: transformer_blocks[1]")
    assert (graph.answer, checkpoint.answer) == ("yes", "no")
    match_reason(checkpoint.reasons[0], "makes temb for each block of transformer_blocks by its number")
    assert judge(chroma, "skip: transformer_blocks[3]")[1].answer == "perhaps"
    for name in ("pixart", "sd3", "flux", "auraflow", "dit"):
        assert [stack.own_context for stack in read_anatomy(build_tiny_model(name)).stacks if stack.own_context] == []


@pytest.mark.parametrize(
    ("code_use", "rest"),
    [
        (None, ", and compile writes it with --verify structure only"),
        ("its code has `n += 1`", " (its code has `n += 1`), and compile writes it with --verify none only"),
    ],
)
def test_what_a_forward_that_was_not_traced_hangs_on_is_said_with_the_option_that_writes_it(anatomies, code_use, rest):
    pixart = anatomies["pixart"]
    stack = dataclasses.replace(pixart.stacks[0], streams=None, code_use=code_use)
    verdict = judge(dataclasses.replace(pixart, stacks=(stack,)), "skip: transformer_blocks[3]")[1]
    fact = "transformer_blocks has not been traced: whether its blocks depend on their numbers is not known"
    assert (verdict.answer, verdict.reasons) == ("perhaps", (f"{fact}{rest}",))
