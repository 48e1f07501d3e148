"""The pipelines of the reference DiT: guidance, loading from a folder, classes by name, pixels and autoencoders."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image
from pipelines import tiny_autoencoder, tiny_clip, tiny_t5, tiny_tokenizer
from transformers import CLIPTextModelWithProjection

import surgery
from surgery.anatomy.sources import find_source
from surgery.dit import CONDITIONINGS, ClassDiTPipeline, TextDiTPipeline, save_tiny_pipeline
from surgery.dit.tiny_pipelines import LABELS, PIPELINE_SIZE, tiny_dit
from surgery.errors import InputError
from surgery.pipelines.conditions import conditions_of
from surgery.pipelines.draw import draw_pictures
from surgery.pipelines.encoded import encode_picture
from surgery.pipelines.guidance import find_guidance
from surgery.pipelines.pretrained import load_pretrained

STEPS = {"num_inference_steps": 3}
TEXT = {"num_classes": None, "pooled_projection_dim": 12}


def class_pipeline(conditioning="adaln_zero", scheduler=None, *, vae=None, labels=LABELS, **changes):
    transformer = tiny_dit(conditioning, **changes)
    return quiet(ClassDiTPipeline(transformer, scheduler or EulerDiscreteScheduler(), vae, labels))


def text_pipeline(encoder, **changes):
    transformer = tiny_dit("in_context", **{**TEXT, **changes})
    return quiet(TextDiTPipeline(transformer, EulerDiscreteScheduler(), encoder, tiny_tokenizer(20)))


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents_of(pipe, given, scale):
    noise = torch.Generator().manual_seed(0)
    return pipe(given, guidance_scale=scale, generator=noise, output_type="latent", **STEPS).images


def by_hand(pipe, labels, scale):
    """u + w (c - u), with two forwards a step."""
    pipe.scheduler.set_timesteps(3)
    noise = torch.randn(len(labels), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = noise * getattr(pipe.scheduler, "init_noise_sigma", 1.0)
    for time in pipe.scheduler.timesteps:
        is_flow = isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler)
        rows = latents if is_flow else pipe.scheduler.scale_model_input(latents, time)
        with torch.no_grad():
            c = pipe.transformer(rows, time, class_labels=torch.tensor(labels)).sample
            u = pipe.transformer(rows, time, class_labels=torch.full((len(labels),), 3)).sample
        predicted = {1: c, 0: u}.get(scale, u + scale * (c - u))
        latents = pipe.scheduler.step(predicted, time, latents).prev_sample
    return latents


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, DDIMScheduler, FlowMatchEulerDiscreteScheduler])
def test_guidance_of_one_is_the_class_alone_of_zero_is_none_and_else_between_or_beyond(scheduler):
    pipe = class_pipeline(scheduler=scheduler())
    for scale in (0, 1):
        assert torch.equal(latents_of(pipe, [0, 2], scale), by_hand(pipe, [0, 2], scale))
    for scale in (0.5, 2.5):
        torch.testing.assert_close(latents_of(pipe, [0, 2], scale), by_hand(pipe, [0, 2], scale), rtol=1e-4, atol=1e-4)
    assert torch.equal(latents_of(pipe, [0], 0), latents_of(pipe, [1], 0))
    assert not torch.equal(latents_of(pipe, [0], 1), latents_of(pipe, [1], 1))


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_folder_is_loaded_without_its_own_code_and_draws_the_same(conditioning, tmp_path):
    folder = save_tiny_pipeline(conditioning, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "ClassDiTPipeline" and index["transformer"] == ["surgery.dit", "DiT"]
    pipe = quiet(load_pretrained(find_source(str(folder)), device="cpu"))
    assert type(pipe) is ClassDiTPipeline and pipe.transformer.config.conditioning == conditioning
    assert torch.equal(
        latents_of(pipe, [1], 2.5), latents_of(class_pipeline(conditioning, sample_size=PIPELINE_SIZE), [1], 2.5)
    )
    again = type(pipe).from_pretrained(pipe.save_pretrained(tmp_path / "again") or tmp_path / "again")
    assert again.labels == {"cat": 0, "dog": 1, "wild": 2}


def test_an_index_that_names_code_in_the_folder_is_no_reason_to_run_it(tmp_path):
    folder = save_tiny_pipeline("adaln_zero", tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "mine.py").write_text("raise SystemExit('run')")
    for named in (["mine", "ClassDiTPipeline"], "mine.ClassDiTPipeline"):
        (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": named}))
        with pytest.raises(InputError, match="can't be loaded on cpu"):
            load_pretrained(find_source(str(folder)), device="cpu")


def test_prompts_are_names_or_numbers_of_the_pipelines_own_classes():
    pipe = class_pipeline()
    assert conditions_of(pipe, ["wild", " dog", "0", "2"]) == [2, 1, 0, 2]
    with pytest.raises(InputError, match='"dogs" is no class of this ClassDiTPipeline; did you mean dog'):
        conditions_of(pipe, ["dogs"])
    with pytest.raises(InputError, match=r'"3" is no class .*; write a number from 0 to 2, or a name'):
        conditions_of(pipe, ["3"])
    with pytest.raises(ValueError, match="there is no class 3; classes are numbered 0 to 2"):
        pipe([3])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"0": "cat", "1": "cat"}, "two classes of id2label have one name"),
        ({"0": "cat", "3": "dog"}, "id2label names class 3; the transformer has classes 0 to 2"),
    ],
)
def test_labels_that_make_no_sense_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        class_pipeline(labels=labels)


def test_a_pipeline_of_the_other_kind_is_named():
    with pytest.raises(ValueError, match="conditioned on texts; make a TextDiTPipeline of it"):
        class_pipeline(**TEXT)
    with pytest.raises(ValueError, match="conditioned on classes; make a ClassDiTPipeline of it"):
        text_pipeline(tiny_t5(), num_classes=3, pooled_projection_dim=None)


def projecting_clip():
    return tiny_clip(CLIPTextModelWithProjection, 8, 12)


@pytest.mark.parametrize("make_encoder", [tiny_t5, projecting_clip])
def test_texts_are_encoded_by_any_encoder_and_padding_says_nothing(make_encoder):
    pipe = text_pipeline(make_encoder())
    one, two = pipe.encode_prompt(["a red apple", "a blue bird"])
    assert one.shape == (12,) and not torch.equal(one, two)
    pipe.tokenizer.model_max_length = 30  # as the mean over padding would see
    torch.testing.assert_close(pipe.encode_prompt(["a red apple"])[0], one, rtol=1e-4, atol=1e-5)
    assert find_guidance(pipe, {**STEPS, "guidance_scale": 2.5}).branches == ("conditional", "unconditional")
    assert not torch.equal(latents_of(pipe, ["a red apple"], 1), latents_of(pipe, ["a blue bird"], 1))


def test_an_encoder_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="the encoder makes 12 channels of a text, and the DiT takes 5"):
        text_pipeline(tiny_t5(), pooled_projection_dim=5).encode_prompt(["a"])


@pytest.mark.parametrize(("channels", "with_vae"), [(1, False), (3, False), (4, True)])
def test_pixels_and_latents_are_drawn_in_colours_and_pictures_come_back_as_what_is_noised(channels, with_vae):
    pipe = class_pipeline(in_channels=channels, vae=tiny_autoencoder(channels) if with_vae else None)
    size = 64 if with_vae else 8
    (drawn,) = draw_pictures(pipe, ["cat"], seed=0, batch_size=1, call=STEPS)
    assert drawn.image.mode == "RGB" and drawn.image.size == (size, size)
    grey = Image.fromarray(np.full((size, size, 3), 255, np.uint8))
    clean = encode_picture(pipe, grey, size, size, torch.Generator().manual_seed(0))
    assert clean.shape == (1, channels, 8, 8) and (with_vae or (clean == 1).all())


def test_two_channels_are_no_picture():
    with pytest.raises(ValueError, match="without a vae a picture has 1 channel or 3, and the transformer has 2"):
        class_pipeline(in_channels=2)


def test_windows_of_guidance_and_time_reach_the_gates_adapters(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "surgery: v1\noperations:\n"
        '  - {replace: {component: "transformer_blocks[:].condition.high", with: zero}, when: {timesteps: [0, 0.4]}}\n'
        '  - {skip: "transformer_blocks[1]", when: {branch: unconditional}}\n'
    )
    pipe = class_pipeline("freq_gate")
    edited = surgery.apply(pipe, spec)
    assert not torch.equal(latents_of(edited, [0], 2.5), latents_of(pipe, [0], 2.5))
