"""The original layout is learnt from diffusers' converter: every row of the class is found in the file, and back."""

import original_layouts as layouts
import pytest
import torch
from safetensors.torch import load_file

from surgery.anatomy.sources import find_source, weights_of_source
from surgery.checkpoint.file_layout import learn_original_layout
from surgery.checkpoint.new_checkpoint import Segment
from surgery.errors import InputError
from surgery.testing import build_tiny_model


@pytest.fixture
def original(tmp_path):
    """A tiny model as a single file in its authors' layout; with its source."""

    def save(name, prefix="", more=None):
        from safetensors.torch import save_file

        model = build_tiny_model(name)
        path = tmp_path / "m.safetensors"
        layouts.save_original(model, path, prefix=prefix)
        if more:
            save_file({**load_file(path), **more}, path)
        return model, find_source(str(path))

    return save


def learn(source, model):
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    width = model.config.num_attention_heads * model.config.attention_head_dim
    with layouts.original_flux_width(width):
        return learn_original_layout(source.class_name, source.config, weights_of_source(source), shapes)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("name", ["flux", "sd3", "sd3-dual"])
def test_every_tensor_of_the_class_is_its_rows_in_the_file(original, name, prefix):
    model, source = original(name, prefix)
    layout, stored = learn(source, model), load_file(source.file)
    assert layout.rows.keys() == model.state_dict().keys()
    for tensor, value in model.state_dict().items():
        rows = torch.cat([stored[s.tensor][s.start : s.stop].flatten() for s in layout.rows[tensor]])
        assert torch.equal(rows, value.flatten()), tensor


def test_fused_tensors_are_cut_and_exchanged_rows_are_two_runs(original):
    model, source = original("flux")
    rows = learn(source, model).rows
    assert rows["single_transformer_blocks.1.attn.to_v.weight"] == (Segment("single_blocks.1.linear1.weight", 32, 48),)
    assert rows["norm_out.linear.weight"] == (
        Segment("final_layer.adaLN_modulation.1.weight", 16, 32),
        Segment("final_layer.adaLN_modulation.1.weight", 0, 16),
    )


def test_rows_keep_their_change_wherever_they_lie(original):
    model, source = original("flux")
    layout = learn(source, model)
    mean = Segment("single_transformer_blocks.1.attn.to_v.bias", 4, 16, "mean", mean="c/s", mean_start=4)
    assert layout.in_file(mean) == [Segment("single_blocks.1.linear1.bias", 36, 48, "mean", mean="c/s", mean_start=4)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("x_embedder.proj.weight", "diffusers' converter stops at KeyError 'x_embedder.proj.weight'"),
        ("final_layer.linear.bias", "diffusers' converter stops at KeyError 'final_layer.linear.bias'"),
    ],
)
def test_a_file_that_lacks_a_tensor_is_refused(original, broken, message):
    from safetensors.torch import save_file

    model, source = original("sd3")
    tensors = load_file(source.file)
    del tensors[broken]
    save_file(tensors, source.file)
    with pytest.raises(InputError, match=f"is no file of a SD3Transformer2DModel in its authors' layout: {message}"):
        learn(source, model)


def test_a_config_of_another_depth_is_refused(original):
    model, source = original("sd3")
    shapes = {name: tuple(v.shape) for name, v in model.state_dict().items()}
    shapes["transformer_blocks.7.attn.to_q.weight"] = (16, 16)
    with pytest.raises(
        InputError, match=r"has no tensor for transformer_blocks\.7\.attn\.to_q\.weight, which its config"
    ):
        learn_original_layout(source.class_name, source.config, weights_of_source(source), shapes)


def test_a_class_that_no_converter_reads_is_refused(original):
    _, source = original("sd3")
    with pytest.raises(
        InputError, match="diffusers reads no single files of a PixArtTransformer2DModel; name a diffusers"
    ):
        learn_original_layout("PixArtTransformer2DModel", {}, weights_of_source(source), {})
