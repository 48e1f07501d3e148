"""A call that was recorded is made again from its row: same arguments, shapes and dtypes, for other sizes as well."""

import pytest
import torch
from tiny import tiny_model

from surgery.calls.call_rows import Maker, Sizes, make_arguments
from surgery.calls.recorded_call import describe_call
from surgery.errors import RefusedError
from surgery.testing import tiny_call


def remake(model, row, sizes):
    return make_arguments(row, Maker(Sizes(sizes, dict(model.config)), torch.empty(()), None))


def facts(kwargs):
    return {name: (tuple(value.shape), value.dtype) for name, value in kwargs.items()}


@pytest.mark.parametrize("name", ["sd3", "flux", "dit"])
def test_a_row_makes_the_call_that_it_was_written_of(name, run):
    model = tiny_model(name)
    given = {key: value for key, value in tiny_call(model).items() if isinstance(value, torch.Tensor)}
    row, sizes = describe_call(model, (), given)
    made = remake(model, row, sizes)
    assert facts(made) == facts(given)
    assert run(model, made).isfinite().all()


def test_arguments_by_position_are_known_by_name():
    model = tiny_model("flux")
    given = tiny_call(model)
    assert describe_call(model, tuple(given.values())[:2], {}) == describe_call(
        model, (), dict(list(given.items())[:2])
    )


def test_sizes_are_fields_of_the_config_or_free():
    row, sizes = describe_call(tiny_model("flux"), (), tiny_call(tiny_model("flux")))
    assert row["hidden_states"] == "batch image in_channels"
    assert row["encoder_hidden_states"] == "batch text joint_attention_dim"
    assert row["img_ids"] == "image 3" and row["txt_ids"] == "text 3"
    assert sizes == {"batch": 2, "image": 9, "text": 7}


def test_a_size_that_is_a_product_of_plain_numbers_changes_with_them():
    shapes = {"hidden_states": torch.zeros(2, 24, 4), "img_shapes": [[(1, 4, 6)]] * 2}
    row, sizes = describe_call(tiny_model("flux"), (), shapes)
    assert row["hidden_states"] == "batch rows*columns in_channels"
    made = remake(tiny_model("flux"), row, {**sizes, "rows": 2, "columns": 3})
    assert made["hidden_states"].shape == (2, 6, 4) and made["img_shapes"] == [[(1, 2, 3)]] * 2


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([7, 7]),
        torch.arange(30),
        torch.tensor([[1, 5], [2, 4]]),
        torch.tensor([True, False]),
        torch.ones(2, 7, dtype=torch.bool),
    ],
)
def test_whole_numbers_and_truths_are_kept(value):
    row, sizes = describe_call(tiny_model("flux"), (), {"hidden_states": torch.zeros(2, 9, 4), "txt_ids": value})
    assert torch.equal(remake(tiny_model("flux"), row, sizes)["txt_ids"], value)


def test_no_value_of_a_tensor_of_floats_is_kept():
    row, _ = describe_call(tiny_model("flux"), (), {"hidden_states": torch.full((2, 9, 4), 0.125)})
    assert "0.125" not in str(row)


def test_an_object_that_cannot_be_written_down_is_told():
    with pytest.raises(RefusedError, match="its argument guidance is given a object, which can't be written down"):
        describe_call(tiny_model("flux"), (), {"hidden_states": torch.zeros(2, 9, 4), "guidance": object()})
