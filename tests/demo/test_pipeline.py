"""The bundled pipeline: stock classes, small, trained, and sensitive to surgery."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

import surgery
from surgery.bundled import DEMO_CALL, DEMO_NAME, DEMO_PROMPTS, demo_folder, demo_specs
from surgery.plan.lower import lower_spec
from surgery.spec.load import load_spec, read_spec

MAX_WEIGHTS_BYTES = 32_000_000
FEW_STEPS = {**DEMO_CALL, "num_inference_steps": 4}
SKIP = 'surgery: v1\noperations: [{skip: "transformer_blocks[4:8]"}]'


@pytest.fixture(scope="module")
def pipe():
    loaded = DiffusionPipeline.from_pretrained(demo_folder())
    loaded.set_progress_bar_config(disable=True)
    return loaded


def draw(pipe, prompts=DEMO_PROMPTS[:2], **options):
    noise = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    return pipe(list(prompts), generator=noise, **{**FEW_STEPS, **options}).images


def test_the_stock_loader_draws_a_picture_of_64_by_64(pipe):
    (picture,) = pipe(DEMO_PROMPTS[0], generator=torch.Generator().manual_seed(0), **DEMO_CALL).images
    assert (picture.size, picture.mode) == ((64, 64), "RGB")
    assert max(high - low for low, high in picture.getextrema()) > 50


def test_every_part_is_a_stock_class(pipe):
    index = json.loads((demo_folder() / "model_index.json").read_text())
    assert {part[0] for part in index.values() if isinstance(part, list)} == {
        "diffusers",
        "transformers",
    }
    assert type(pipe).__name__ == index["_class_name"]


def test_weights_are_small_and_finite(pipe):
    files = list(demo_folder().rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) < MAX_WEIGHTS_BYTES
    assert all(
        value.isfinite().all()
        for part in pipe.components.values()
        if isinstance(part, nn.Module)
        for value in part.parameters()
    )


def test_there_is_depth_for_surgery_in_few_tokens(pipe):
    anatomy = surgery.inspect(DEMO_NAME)
    (stack,) = anatomy.stacks
    config = pipe.transformer.config
    assert stack.num_blocks >= 12
    assert (config.sample_size // config.patch_size) ** 2 <= 64
    assert all(len(pipe.tokenizer(prompt).input_ids) <= 64 for prompt in DEMO_PROMPTS)


def test_every_word_of_the_prompts_is_known(pipe):
    unknown = pipe.tokenizer.unk_token_id
    assert all(unknown not in pipe.tokenizer(prompt).input_ids for prompt in DEMO_PROMPTS)
    assert unknown in pipe.tokenizer("zzxqy").input_ids


def test_the_same_noise_draws_the_same_latents(pipe):
    assert torch.equal(draw(pipe, output_type="latent"), draw(pipe, output_type="latent"))


def test_skipping_blocks_changes_the_latents(pipe):
    before = draw(pipe, output_type="latent")
    after = draw(surgery.apply(pipe, read_spec(SKIP)), output_type="latent")
    assert after.isfinite().all()
    assert (after - before).norm() > 0.01 * before.norm()
    assert torch.equal(draw(pipe, output_type="latent"), before)


def test_the_prompt_is_heard(pipe):
    first, other = (draw(pipe, [prompt], output_type="latent") for prompt in DEMO_PROMPTS[:2])
    assert (first - other).norm() > 0.01 * first.norm()


def test_every_spec_of_the_demo_can_be_planned():
    anatomy = surgery.inspect(DEMO_NAME)
    specs = [load_spec(path) for path in demo_specs()]
    assert len(specs) >= 3
    assert all(spec.model == DEMO_NAME for spec in specs)
    assert all(not lower_spec(spec, anatomy, None).is_identity for spec in specs)
