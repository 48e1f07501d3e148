"""The reference DiT: the study's parameters to the digit, the identity at the start, and configs that make no sense."""

import json

import pytest
import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import nn
from torch.utils.checkpoint import checkpoint

from surgery.dit import CONDITIONINGS, DiT, study_config
from surgery.dit.blocks import ADAPTIVE
from surgery.dit.embeddings import grid_positions, patchify, unpatchify
from surgery.dit.tiny_pipelines import TINY_SIZES, tiny_dit
from surgery.graph.apply import apply
from surgery.spec.load import read_spec
from surgery.testing import tiny_call

STUDY = {  # counted by running the study's own code
    ("adaln_zero", 14): 68_582_416,
    ("freq_gate", 12): 68_318_224,
    ("adaln_zero", 12): 58_862_608,
    ("cross_attention", 12): 55_723_024,
    ("in_context", 12): 39_951_376,
}
DEPARTURES = {
    "cross_attention_tokens": 1,
    "affine_norms": True,
    "plain_head": True,
    "activation": "silu",
    "own_projections": True,
}


def num_parameters(config):
    with torch.device("meta"):
        return sum(value.numel() for value in DiT(**config).parameters())


def fresh_dit(conditioning, **changes):
    torch.manual_seed(0)
    return DiT(**{**TINY_SIZES, "num_classes": 3, "conditioning": conditioning, **changes}).eval()


def inputs_of(model):
    return tiny_call(model, height=8, width=8)


@pytest.mark.parametrize(("conditioning", "num_layers"), STUDY)
def test_the_studys_models_have_as_many_parameters_as_its_own_to_the_digit(conditioning, num_layers):
    assert num_parameters(study_config(conditioning, num_layers=num_layers)) == STUDY[conditioning, num_layers]


@pytest.mark.parametrize("conditioning", ADAPTIVE)
def test_adaptive_blocks_are_the_identity_at_the_start_and_no_noise_is_predicted(conditioning, run):
    model = fresh_dit(conditioning)
    tokens, condition = torch.randn(2, 16, 16), torch.randn(2, 1, 16)
    with torch.no_grad():
        assert all(torch.equal(block(tokens, condition, condition), tokens) for block in model.transformer_blocks)
        assert not torch.equal(tiny_dit(conditioning).transformer_blocks[0](tokens, condition, condition), tokens)
    assert not run(model, inputs_of(model)).any()
    assert run(fresh_dit(conditioning, plain_head=True), inputs_of(model)).any()


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_model_is_the_same_when_it_is_saved_and_loaded_and_hangs_on_time_and_label(conditioning, run, tmp_path):
    model = tiny_dit(conditioning)
    call = inputs_of(model)
    model.save_pretrained(tmp_path)
    loaded, report = DiT.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and loaded.config.conditioning == conditioning
    output = run(model, call)
    assert torch.equal(run(loaded.eval(), call), output) and output.shape == (2, 3, 8, 8)
    others = {"timestep": call["timestep"] + 300, "class_labels": call["class_labels"] + 1}
    assert all(not torch.equal(run(model, {**call, name: value}), output) for name, value in others.items())


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_all_that_the_study_does_otherwise_goes_together_with_texts(conditioning, run):
    departures = {**DEPARTURES, "own_projections": conditioning != "in_context", "unused_layers": True}
    model = tiny_dit(conditioning, num_classes=None, pooled_projection_dim=5, **departures)
    call = inputs_of(model)
    assert "class_labels" not in call and call["pooled_projections"].shape == (2, 5)
    output = run(model, call)
    assert not torch.equal(run(model, {**call, "pooled_projections": call["pooled_projections"] + 1}), output)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.add_(1.0 * ("unused" in name))
    assert torch.equal(run(model, call), output)


def test_attention_to_one_token_adds_the_same_to_every_token_and_to_two_it_does_not():
    tokens, condition = torch.randn(2, 16, 16), torch.randn(2, 2, 16)
    with torch.no_grad():
        attention = tiny_dit("cross_attention").transformer_blocks[0].attn2
        one, two = attention(tokens, condition[:, :1]), attention(tokens, condition)
    torch.testing.assert_close(one, one[:, :1].expand_as(one))
    assert (two - two[:, :1]).abs().max() > 1e-3


def test_patches_are_put_back_where_they_were_taken_from():
    pictures = torch.randn(2, 3, 6, 10)
    tokens = patchify(pictures, 2)
    assert tokens.shape == (2, 15, 12)
    assert torch.equal(tokens[:, 6].unflatten(1, (3, 2, 2)), pictures[:, :, 2:4, 2:4])  # row 1, column 1 of 3 x 5
    assert torch.equal(unpatchify(tokens, 3, 2), pictures)


def test_positions_are_those_of_diffusers_but_for_the_order_of_channels():
    ours, theirs = grid_positions(4, 4, 16), get_2d_sincos_pos_embed(16, 4, base_size=4)
    columns = {tuple(column.mul(1e4).round().tolist()) for column in ours.T}
    assert columns == {tuple(column.mul(1e4).round().tolist()) for column in theirs.float().T}


def test_another_size_has_the_positions_that_a_model_of_that_size_has(run):
    small, large = tiny_dit("adaln_zero", sample_size=8), tiny_dit("adaln_zero", sample_size=16)
    call = inputs_of(small)
    assert torch.equal(run(small, call), run(large, call))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 3}, "a sample_size of 8 can't be cut into patches of 3; write a patch_size that divides it"),
        ({"num_attention_heads": 3}, "3 heads do not divide a hidden_size of 16; write a number of heads that does"),
        ({"hidden_size": 18}, "a hidden_size of 18 has no quarters"),
        (
            {"conditioning": "adaln"},
            'there is no conditioning "adaln" of a DiT; there are in_context, cross_attention, a',
        ),
        ({"activation": "relu"}, 'there is no activation "relu" of a DiT; there are gelu, silu'),
        (
            {"num_layers": 0, "mlp_ratio": -1},
            "num_layers is 0; write a whole number from 1 on; mlp_ratio is -1; write a",
        ),
        ({"num_classes": True}, "num_classes is True; write a whole number from 1 on, or leave it out"),
        ({"num_classes": None}, "the config has neither num_classes nor pooled_projection_dim"),
        ({"pooled_projection_dim": 4}, "the config has both num_classes and pooled_projection_dim"),
        ({"own_projections": True}, "own_projections are of encoded texts; write pooled_projection_dim"),
        ({"cross_attention_tokens": 3}, "cross_attention_tokens is 3; write 2, or 1 as the study has it"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_with_what_to_write(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        fresh_dit(**{"conditioning": "adaln_zero", **changes})


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("adaln_zero", {"conditioning": "freq_gate"}),
        ("freq_gate", {"conditioning": "adaln_zero"}),
        ("in_context", {"num_layers": 3}),
        ("in_context", {"num_layers": 5}),
        ("cross_attention", {"hidden_size": 32}),
    ],
)
def test_the_weights_of_another_config_are_refused_and_never_left_out_in_silence(tmp_path, before, change):
    tiny_dit(before).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(ValueError, match=r"are not those of a DiT with the config beside them: |expected shape"):
        DiT.from_pretrained(tmp_path)


def test_a_label_of_the_wrong_kind_and_a_picture_that_is_no_multiple_of_the_patch_are_refused():
    model = tiny_dit("adaln_zero")
    call = inputs_of(model)
    text = {**call, "class_labels": None, "pooled_projections": torch.zeros(2, 4)}
    with pytest.raises(ValueError, match="conditioned on class_labels; give those, and nothing else of the kind"):
        model(**text)
    with pytest.raises(ValueError, match="a picture of 7 x 8 can't be cut into patches of 2 x 2"):
        model(**{**call, "hidden_states": torch.zeros(2, 3, 7, 8)})


def test_norms_have_no_weights_unless_they_are_asked_for():
    norms = [m for m in fresh_dit("in_context").modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 9 and not any(list(norm.parameters()) for norm in norms)
    assert num_parameters({**TINY_SIZES, "num_classes": 3, "conditioning": "in_context", "affine_norms": True}) == (
        num_parameters({**TINY_SIZES, "num_classes": 3, "conditioning": "in_context"}) + 9 * 2 * 16
    )


def gradients_of(model, checkpointing=None):
    """Of one call, with a function that blocks are checkpointed by, or without."""
    model.zero_grad()
    if checkpointing is not None:
        model.enable_gradient_checkpointing(checkpointing)
    model(**inputs_of(model)).sample.square().mean().backward()
    model.disable_gradient_checkpointing()
    return [value.grad for value in model.parameters() if value.grad is not None]


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_gradients_are_the_same_where_blocks_run_twice_for_them(conditioning):
    """Of the model and of a variant: each block goes through the function that diffusers checkpoints by."""
    calls = []

    def run_twice(block, *given):
        calls.append(block)
        return checkpoint(block, *given, use_reentrant=False)

    model = tiny_dit(conditioning).train()
    variant = apply(model, read_spec("surgery: v1\noperations: [{skip: 'transformer_blocks[1]'}]")).train()
    for one in (model, variant):
        calls.clear()
        plain, again = gradients_of(one), gradients_of(one, run_twice)
        assert calls == [block for _, block in one.transformer_blocks.named_children()]
        assert all(torch.equal(value, other) for value, other in zip(plain, again, strict=True))
