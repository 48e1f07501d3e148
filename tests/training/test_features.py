"""What is compared within two models: the same blocks, without what is extreme; and what of a model is trained."""

import pytest
import torch
from torch import nn

from surgery.errors import InputError, RefusedError
from surgery.plan.plan import plan_from_text
from surgery.testing import build_tiny_model
from surgery.training.features import feature_loss, masked_error, match_blocks, outputs_of, usual_values
from surgery.training.trained_parts import PARTS, choose_trained_, neighbours


def plan_of(items, class_name="PixArtTransformer2DModel"):
    return plan_from_text(f"model {class_name}\ntransformer_blocks[5]: {items}\n")


@pytest.mark.parametrize(
    ("items", "pairs"),
    [
        ("0 2 4", [(0, 0), (1, 2), (2, 4)]),
        ("0:2 3:5", [(0, 0), (1, 1), (2, 3), (3, 4)]),
        ("0 1 1 1 4", [(0, 0), (3, 1), (4, 4)]),
    ],
)
def test_blocks_are_matched_by_their_original_index(items, pairs):
    assert [(match.place, match.original) for match in match_blocks(plan_of(items))] == pairs


@pytest.mark.parametrize("items", ["0 2 1 3 4", "4 3 2 1 0", "0 1 0 2 1"])
def test_blocks_in_another_order_are_not_matched(items):
    with pytest.raises(RefusedError, match=r"the layers of transformer_blocks run in another order.*--features 0"):
        match_blocks(plan_of(items))


def test_extreme_values_do_not_count():
    teacher = torch.randn(2, 50, 20, generator=torch.Generator().manual_seed(0))
    teacher[:, 0, 3] = 2000.0
    student = teacher.clone()
    student[:, 0, 3] = 0.0
    assert masked_error(student, teacher, 4.0) == 0
    assert masked_error(student, teacher, None) > 0.9
    assert usual_values(teacher, 4.0).sum() == teacher.numel() - 2


def test_a_usual_difference_counts_relative_to_its_teacher():
    teacher = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert masked_error(1.1 * teacher, teacher, None) == pytest.approx(0.01, rel=1e-4)
    assert masked_error(110 * teacher, 100 * teacher, 2.0) == pytest.approx(0.01, rel=1e-4)


def test_features_of_a_model_and_itself_are_equal_and_no_hook_is_left(tmp_path):
    blocks = [nn.Linear(3, 3), nn.Linear(3, 3)]
    with outputs_of(blocks) as found:
        for block in blocks:
            block(torch.ones(2, 3))
    assert feature_loss(found, found, 4.0) == 0 and set(found) == {0, 1}
    assert not any(block._forward_hooks for block in blocks)


def test_the_neighbours_of_gaps_are_trained():
    assert neighbours(plan_of("0 1 3 4")) == [("transformer_blocks", 1), ("transformer_blocks", 2)]
    assert neighbours(plan_of("1 2 3 4")) == [("transformer_blocks", 0)]
    assert neighbours(plan_of("0:5")) == []


@pytest.mark.parametrize("part", PARTS)
def test_a_part_takes_gradients_and_nothing_else(part):
    model = build_tiny_model("pixart")
    choose_trained_(model, part, plan_of("0 1 3 4"))
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    every = {name for name, _ in model.named_parameters()}
    tables = {name for name in every if name.startswith("transformer_blocks.") and name.endswith("scale_shift_table")}
    beside = {name for name in every if name.startswith(("transformer_blocks.1.", "transformer_blocks.2."))}
    match part:
        case "all":
            assert trained == every
        case "lora":
            assert not trained
        case "norms":
            assert tables <= trained and not any("attn" in name or "ff" in name for name in trained)
            assert any(name.startswith("adaln_single.") for name in trained)
        case "neighbours":
            assert trained == beside


def test_a_part_that_is_not_there_is_told():
    with pytest.raises(InputError, match="there are no neighbours to train in this PixArtTransformer2DModel"):
        choose_trained_(build_tiny_model("pixart"), "neighbours", plan_of("0:5"))
