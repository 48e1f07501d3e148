"""What a plan saves is counted once, where it is saved."""

import pytest

from surgery.plan.cost import plan_cost
from surgery.plan.lower import lower_spec
from surgery.spec.load import read_spec

BLOCK, COMPONENT = 10_000, 1000  # parameters of the sample anatomies


def lost(anatomy, *operations):
    text = "surgery: v1\noperations:\n" + "".join(f"  - {operation}\n" for operation in operations)
    cost = plan_cost(lower_spec(read_spec(text), anatomy), anatomy)
    return cost.parameters_before - cost.parameters_after, cost.bytes_before - cost.bytes_after


@pytest.mark.parametrize(
    ("operations", "parameters"),
    [
        (['reverse: "transformer_blocks[:]"'], 0),
        (['skip: "transformer_blocks[3:6]"'], 3 * BLOCK),
        (['replace: {component: "transformer_blocks[3].ff", with: zero}'], COMPONENT),
        (['repeat: {layers: "transformer_blocks[3]", times: 4}'], 0),
        (
            [
                'replace: {component: "transformer_blocks[3:5].ff", with: zero}',
                'skip: "transformer_blocks[3]"',  # and its component with it
                'repeat: {layers: "transformer_blocks[4]", times: 2}',
            ],
            BLOCK + COMPONENT,
        ),
    ],
)
def test_what_does_not_run_is_saved_once(anatomies, operations, parameters):
    assert lost(anatomies["pixart"], *operations) == (parameters, 4 * parameters)
