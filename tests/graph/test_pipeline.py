"""`surgery.apply(pipe, spec)`: a new pipeline that shares all components, beside an untouched one."""

import pytest
import torch
from diffusers import DiffusionPipeline

from surgery.bundled import DEMO_CALL, demo_folder
from surgery.errors import InputError, RefusedError
from surgery.graph.apply import apply
from surgery.spec.load import read_spec

SKIP = read_spec('surgery: v1\noperations: [{skip: "transformer_blocks[5:8]"}]')


@pytest.fixture(scope="module")
def pipe():
    pipeline = DiffusionPipeline.from_pretrained(demo_folder())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline):
    call = {**DEMO_CALL, "num_inference_steps": 3, "output_type": "latent"}
    return pipeline("red apple", generator=torch.Generator().manual_seed(0), **call).images


def test_the_original_pipeline_draws_the_same_before_and_after(pipe):
    before, transformer, config = draw(pipe), pipe.transformer, dict(pipe.config)
    variant = apply(pipe, SKIP)
    edited = draw(variant)
    assert pipe.transformer is transformer
    assert dict(pipe.config) == config
    assert torch.equal(draw(pipe), before)
    assert not torch.equal(edited, before)


def test_a_variant_pipeline_shares_all_other_components(pipe):
    variant = apply(pipe, SKIP)
    assert type(variant) is type(pipe)
    assert variant.components.keys() == pipe.components.keys()
    others = [name for name in pipe.components if name != "transformer"]
    assert all(getattr(variant, name) is getattr(pipe, name) for name in others)
    assert type(variant.transformer).__name__ == type(pipe.transformer).__name__


def test_identity_draws_the_same_to_the_bit(pipe):
    assert torch.equal(draw(apply(pipe, read_spec("surgery: v1\noperations: []"))), draw(pipe))


def test_saving_a_variant_pipeline_is_refused(pipe, tmp_path):
    with pytest.raises(RefusedError, match="random weights in the gaps"):
        apply(pipe, SKIP).save_pretrained(tmp_path)


def test_what_has_no_transformer_is_refused():
    with pytest.raises(InputError, match="neither a transformer nor a pipeline with one"):
        apply(object(), SKIP)
