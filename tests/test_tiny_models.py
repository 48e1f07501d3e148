"""`surgery.testing`, as users call it: what it does not have is told."""

import pytest
from torch import nn

from surgery.errors import InputError
from surgery.plan.plan import plan_from_text
from surgery.testing import build_tiny_model, run_by_hand, tiny_call


def test_a_tiny_model_that_there_is_not_is_told_with_those_that_there_are():
    with pytest.raises(InputError, match="there is no tiny model fluks; there are pixart, sd3, sd3-dual, flux, "):
        build_tiny_model("fluks")


def test_a_class_without_example_inputs_is_told():
    with pytest.raises(InputError, match="there are no example inputs for Linear; build the arguments"):
        tiny_call(nn.Linear(2, 2))


def test_the_edit_by_hand_leaves_a_model_as_it_was_whatever_happens(run):
    model = build_tiny_model("sd3")
    model.transformer_blocks[0].forward = own = model.transformer_blocks[0].forward
    plan, call = plan_from_text("model SD3Transformer2DModel\ntransformer_blocks[5]: 0 2:5\n"), tiny_call(model)
    before = run(model, call)
    assert not (run_by_hand(model, plan, call) == before).all()
    with pytest.raises(AttributeError, match="shape"):
        run_by_hand(model, plan, {**call, "hidden_states": None})
    assert (run(model, call) == before).all()
    changed = [name for name, part in model.named_modules() if "forward" in vars(part) or part._forward_pre_hooks]
    assert changed == ["transformer_blocks.0"] and model.transformer_blocks[0].forward is own
