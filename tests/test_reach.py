"""A sample of diffusers' transformer classes, tiny: what `make reach` goes through equals the edits by hand."""

import pytest
import reach
from reach_page import REPLACE, SAME, Row, page_of, rows_of

SAMPLE = {  # what each is here for
    "QwenImageTransformer2DModel": "whole",  # sizes in factories of torch
    "OmniGenTransformer2DModel": "whole, on contents",  # a number that is in a tensor
    "PRXTransformer2DModel": "whole",  # asks whether a shape is one
    "ZImageTransformer2DModel": "whole",  # a helper that is no module keeps a list of tensors
    "Kandinsky5Transformer3DModel": "whole",  # two stacks
    "MiniMaxMusic3RVQDepthDecoder": "whole",  # returns a tensor and no output
}


MORE_THAN_BLOCKS = [  # their loops do more than to run a block: what the edit by hand goes through a round at a time
    "HunyuanDiT2DModel",  # long skip connections in a list
    "LatteTransformer3DModel",  # two stacks in one loop
    pytest.param("WanVACETransformer3DModel", marks=pytest.mark.slow),  # hints popped from a list, each with its scale
]


@pytest.mark.parametrize("name", MORE_THAN_BLOCKS)
@pytest.mark.usefixtures("nothing_is_sought")
def test_what_a_loop_does_around_a_block_goes_with_it(name):
    row = reach.try_class(name, operations=["reverse", "scale"])[0]
    assert row.answers == {"reverse": "yes", "scale": "yes"}


SLOW = ("ZImageTransformer2DModel", "Kandinsky5Transformer3DModel")  # quick: graph/test_own_objects.py, and Flux


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SAMPLE])
@pytest.mark.usefixtures("nothing_is_sought")
def test_an_operation_is_what_the_edit_by_hand_gives(name):
    rows = reach.try_class(name, operations=["skip", "parallel"])
    assert [row.traced for row in rows] == len(rows) * [SAMPLE[name]]
    assert {answer for row in rows for answer in row.answers.values()} == {"yes"}


ON_DISK = {  # what the meta device does not tell of them
    "MiniMaxMusic3RVQDepthDecoder": "a table of positions that is too short for most sizes",
    "NucleusMoEImageTransformer2DModel": "heads that become none, and a list with a value a layer that no tensor shows",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * ("Nucleus" in name)) for name in ON_DISK]
)
def test_a_small_model_is_one_that_runs_with_numbers(name):
    row = reach.try_class(name, operations=[], with_checkpoints=True)[0]
    assert row.answers == {"skip on disk": "yes", "repeat on disk": "yes"}, row.reasons


def test_the_page_tells_right_from_refused_and_wrong():
    right = Row("A", "blocks", "row", "whole", 0.5, {**dict.fromkeys(reach.OPERATIONS, "yes"), REPLACE: "3 of 3"})
    refused = Row("B", "blocks", "config", "in part", 1.0, {SAME: "yes"})
    refused.refuse("skip", "first line\n/a/folder/spec.yaml:2:1: it is so")
    wrong = Row("C", "blocks", "one call", "whole", 0.1, {SAME: "yes", "skip": "off by 1.0e-01", REPLACE: "2 of 3"})
    aside = Row("A", "refiners", "row", "whole", 0.5, {SAME: "yes"})
    for operation in set(reach.OPERATIONS) - {SAME}:
        aside.refuse(operation, "they hang on nothing")
    lines = page_of([right, refused, wrong]).splitlines()
    assert "* B blocks: skip: first line spec.yaml:2:1: it is so" in lines
    counts = "3 run the unedited graph to the bit, 2 traced whole, {} with all operations of all stacks equal, {} more"
    assert any(line.startswith(f"* 3 classes: {counts.format(1, 0)}") for line in lines)
    lines_with_aside = page_of([right, aside, refused, wrong]).splitlines()
    assert any(line.startswith(f"* 3 classes: {counts.format(0, 1)}") for line in lines_with_aside)
    assert "* replace: on 2 classes, 5 of 6 components" in lines
    assert "* wrong: C" in lines
    again = page_of(rows_of(page_of([right, refused, wrong])))
    assert again.splitlines() == lines
