"""What tests/original_layouts.py writes is what diffusers reads as the layouts of Flux and SD3."""

from contextlib import nullcontext

import diffusers
import original_layouts as layouts
import pytest
import torch
from safetensors.torch import load_file, save_file

from surgery.testing import build_tiny_model

STACKS = {"flux": {"double_blocks", "single_blocks"}, "sd3": {"joint_blocks"}, "sd3-dual": {"joint_blocks"}}
LAST_TEXT = "joint_blocks.4.context_block"


def read_back(model, path, config, **kwargs):
    width = model.config.num_attention_heads * model.config.attention_head_dim
    is_flux = isinstance(model, diffusers.FluxTransformer2DModel)
    with layouts.original_flux_width(width) if is_flux else nullcontext():
        return type(model).from_single_file(str(path), config=config, **kwargs)


def differing(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    return [name for name in ours if ours[name].dtype != theirs[name].dtype or not ours[name].equal(theirs[name])]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("name", STACKS)
def test_diffusers_reads_back_the_model_to_the_bit(name, prefix, tmp_path):
    model = build_tiny_model(name)
    config = layouts.save_original(model, tmp_path / "original.safetensors", prefix=prefix)
    assert differing(model, read_back(model, tmp_path / "original.safetensors", config)) == []


@pytest.mark.parametrize("name", STACKS)
def test_the_file_has_the_stacks_of_the_authors_and_none_of_diffusers(name, tmp_path):
    layouts.save_original(build_tiny_model(name), tmp_path / "original.safetensors", prefix="p.")
    names = load_file(tmp_path / "original.safetensors")
    assert {name.split(".")[1] for name in names if "blocks" in name} == STACKS[name]


def test_the_guidance_of_flux_is_kept(tmp_path):
    model = diffusers.FluxTransformer2DModel.from_config({**build_tiny_model("flux").config, "guidance_embeds": True})
    config = layouts.save_original(model, tmp_path / "original.safetensors")
    assert differing(model, read_back(model, tmp_path / "original.safetensors", config)) == []


@pytest.mark.parametrize("name", STACKS)
def test_bfloat16_is_read_as_float32_unless_asked_for(name, tmp_path):
    model, path = build_tiny_model(name).bfloat16(), tmp_path / "original.safetensors"
    config = layouts.save_original(model, path)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.bfloat16}
    assert differing(model.float(), read_back(model, path, config)) == []
    assert differing(model.bfloat16(), read_back(model, path, config, torch_dtype=torch.bfloat16)) == []


@pytest.mark.parametrize(
    ("name", "tensor", "read_as"),
    [
        ("flux", "final_layer.adaLN_modulation.1.weight", "norm_out.linear.weight"),
        ("sd3", f"{LAST_TEXT}.adaLN_modulation.1.bias", "transformer_blocks.4.norm1_context.linear.bias"),
    ],
)
def test_rows_in_the_order_of_diffusers_are_read_as_another_model(name, tensor, read_as, tmp_path):
    model, path = build_tiny_model(name), tmp_path / "original.safetensors"
    config = layouts.save_original(model, path)
    tensors = load_file(path)
    save_file({**tensors, tensor: torch.cat(tensors[tensor].chunk(2)[::-1])}, path)
    assert differing(model, read_back(model, path, config)) == [read_as]


def test_without_the_tiny_width_diffusers_can_not_read_a_tiny_flux(tmp_path):
    model = build_tiny_model("flux")
    config = layouts.save_original(model, tmp_path / "original.safetensors")
    read_back(model, tmp_path / "original.safetensors", config)
    with pytest.raises(RuntimeError, match="split_with_sizes expects"):  # the width is put back afterwards
        type(model).from_single_file(str(tmp_path / "original.safetensors"), config=config)


def test_a_tensor_that_the_layout_has_no_place_for_is_refused():
    state_dict = build_tiny_model("sd3").state_dict()
    with pytest.raises(AssertionError, match=r"no place for \['extra.weight'\]"):
        layouts.sd3_to_original({**state_dict, "extra.weight": torch.zeros(1)})
