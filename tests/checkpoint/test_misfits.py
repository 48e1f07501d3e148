"""Weights of a block are not lost in silence: what has no place is followed, tried, or refused."""

import copy
import json

import diffusers
import pytest
import torch
from torch import nn

from surgery.checkpoint.misfits import find_misfits
from surgery.checkpoint.new_checkpoint import Misfit, describe_misfits
from surgery.errors import RefusedError
from surgery.plan.planned import plan_spec_file
from surgery.publish.pruned_model import CompileOptions, compile_planned
from surgery.testing import build_tiny_model

HUNYUAN = {
    **{"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "sample_size": 8, "patch_size": 2},
    **{"num_layers": 4, "hidden_size": 16, "cross_attention_dim": 16, "cross_attention_dim_t5": 16, "text_len": 4},
    **{"pooled_projection_dim": 16, "text_len_t5": 4, "activation_fn": "gelu-approximate", "mlp_ratio": 2.0},
}
BRIA_FIBO_2 = {
    **{"in_channels": 4, "dim": 24, "n_layers": 5, "n_refiner_layers": 1, "n_heads": 2, "cap_feat_dim": 16},
    **{"injection_layer_ids": (1, 3), "perceiver_num_layers": 1, "axes_dims": (4, 4, 4), "axes_lens": (32, 16, 16)},
}
WAN_ANIMATE = {
    **{"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 12, "latent_channels": 4, "out_channels": 4},
    **{"text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 4, "image_dim": 16, "motion_encoder_size": 16},
    **{"motion_encoder_channel_sizes": {"4": 16, "8": 16, "16": 16}, "motion_style_dim": 16, "motion_dim": 4},
    **{"motion_encoder_dim": 16, "face_encoder_hidden_dim": 16, "face_encoder_num_heads": 2},
    **{"inject_face_latents_blocks": 2},
}


@pytest.fixture
def easy_animate():
    torch.manual_seed(0)
    return diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, patch_size=2, num_layers=4,
        mmdit_layers=2, text_embed_dim=16, time_embed_dim=8,
    ).eval()  # fmt: skip


@pytest.fixture
def compile_to(tmp_path):
    """Compiles a model under one operation; returns what was written."""

    def run(model, operation, verify="structure"):
        model.save_pretrained(tmp_path / "model")
        spec = tmp_path / "spec.yaml"
        spec.write_text(f"surgery: v1\nmodel: {tmp_path / 'model'}\noperations:\n  - {operation}\n")
        return compile_planned(plan_spec_file(spec), tmp_path / "out", CompileOptions(verify=verify))

    return run


@pytest.mark.parametrize(
    ("operation", "order", "fields"),
    [
        ('repeat: {layers: "transformer_blocks[1]", times: 2}', [0, 1, 1, 2, 3], (5, 3)),
        ('skip: "transformer_blocks[0]"', [1, 2, 3], (3, 1)),
        ('repeat: {layers: "transformer_blocks[2]", times: 2}', [0, 1, 2, 2, 3], (5, 2)),
    ],
)
def test_the_first_blocks_of_easy_animate_keep_all_their_weights(easy_animate, compile_to, operation, order, fields):
    written = compile_to(easy_animate, operation).folder
    config = json.loads((written / "config.json").read_text())
    assert (config["num_layers"], config["mmdit_layers"]) == fields
    by_hand = copy.deepcopy(easy_animate)
    by_hand.transformer_blocks = nn.ModuleList([easy_animate.transformer_blocks[layer] for layer in order])
    call = {
        **{"hidden_states": torch.randn(1, 4, 2, 8, 8), "timestep": torch.tensor([1.0])},
        **{"encoder_hidden_states": torch.randn(1, 5, 16), "return_dict": False},
    }
    loaded = type(easy_animate).from_pretrained(written).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**call)[0], by_hand(**call)[0])


class Kinds(nn.Module):
    """Blocks with and without a second layer, and a window that one kind looks through."""

    def __init__(self, kinds, windows):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Module() for _ in kinds])
        for block, has_second, window in zip(self.blocks, kinds, windows, strict=True):
            block.one = Windowed(window)
            if has_second:
                block.two = nn.Linear(2, 2)


class Windowed(nn.Linear):
    """A layer that is told how far it looks."""

    def __init__(self, window):
        super().__init__(2, 2)
        self.window = window

    def forward(self, x):
        return super().forward(x[: self.window])


def test_what_a_place_does_not_take_is_left_over():
    original, pruned = Kinds([1, 1, 0], [4, 4, 8]), Kinds([1, 0, 0], [4, 8, 8])
    first, second = find_misfits(original, pruned, {"blocks": [0, 1, 0]})
    assert first == Misfit("blocks.1", "blocks.1", ("two.weight", "two.bias"), ("one.window: 8",))
    assert (second.block, second.place) == ("blocks.0", "blocks.2")
    assert describe_misfits([first, second]) == (
        "at blocks.1 the stock class has no place for two.weight, two.bias of blocks.1 and sets one.window: 8 "
        "otherwise than in blocks.1 (1 more blocks are like that)"
    )


def test_a_setting_of_a_processor_is_one_of_its_block():
    """Attention processors are no modules; what they are told differs by place all the same."""
    before, after = (Told(window) for window in (4, 8))
    (misfit,) = find_misfits(stack_of(before), stack_of(after), {"blocks": [0]})
    assert misfit.settings == ("processor.window: 8",)


class Processor:
    def __init__(self, window):
        self.window = window

    def __call__(self, x):
        return x * self.window


class Told(nn.Module):
    def __init__(self, window):
        super().__init__()
        self.processor = Processor(window)


def stack_of(block):
    model = nn.Module()
    model.blocks = nn.ModuleList([block])
    return model


def test_what_is_whole_is_no_misfit():
    original = Kinds([1, 0], [4, 4])
    assert not list(find_misfits(original, Kinds([1, 1, 0], [4, 4, 4]), {"blocks": [0, 0, 1]}))


@pytest.mark.parametrize("verify", ["structure", "numeric"])
def test_the_new_last_block_of_sd3_is_tried_and_what_it_lacks_is_said(compile_to, verify):
    written = compile_to(build_tiny_model("sd3"), 'skip: "transformer_blocks[4]"', verify)
    assert written.checks["transformer"]["numeric"]["difference"] == 0.0
    (misfit,) = written.prepared.new.misfits
    assert misfit.place == "transformer_blocks.3" and "ff_context.net.2.weight" in misfit.tensors
    dropped = [name for name in written.prepared.new.dropped if name.startswith("transformer_blocks.3.")]
    assert set(dropped) < {f"transformer_blocks.3.{name}" for name in misfit.tensors}  # of its norm some rows are kept
    before, after = written.manifest["weights"]["bytes"]
    assert written.prepared.dropped_bytes == before - after  # nothing is repeated
    card = (written.folder / "README.md").read_text()
    assert f"{len(misfit.tensors)} tensors did not come along: at transformer_blocks.3 the stock class has no" in card


def test_a_block_that_is_not_whole_is_refused_where_nothing_can_be_tried(easy_animate, compile_to, monkeypatch):
    """The saboteur: the field that counts the first blocks is not found."""
    monkeypatch.setattr("surgery.checkpoint.config_fields._end_field", lambda *_: None)
    operation = 'repeat: {layers: "transformer_blocks[1]", times: 2}'
    with pytest.raises(RefusedError, match=r"at transformer_blocks.2 the stock class has no place for .* 13 more of"):
        compile_to(easy_animate, operation)
    assert compile_to(easy_animate, operation, "none").prepared.new.misfits


@pytest.mark.parametrize(
    ("name", "config", "operation", "line"),
    [
        ("HunyuanDiT2DModel", HUNYUAN, 'repeat: {layers: "blocks[3]", times: 2}', "skips.pop"),
        ("BriaFibo2Transformer2DModel", BRIA_FIBO_2, 'skip: "layers[1]"', "bundle_index = "),
        ("WanAnimateTransformer3DModel", WAN_ANIMATE, 'repeat: {layers: "blocks[0]", times: 2}', "inject_face_latents"),
    ],
)
@pytest.mark.usefixtures("nothing_is_sought")
def test_a_forward_that_may_go_by_numbers_and_can_not_be_tried_is_refused_unless_by_name(
    compile_to, name, config, operation, line
):
    model = getattr(diffusers, name)(**config)
    with pytest.raises(RefusedError, match=rf"can't be tried, and it may: the code of {name} has `.*{line}") as caught:
        compile_to(model, operation)
    assert "--verify none writes the files all the same; the graph backend runs it" in str(caught.value)
    assert (compile_to(model, operation, "none").folder / "config.json").exists()
