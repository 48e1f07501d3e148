"""Pipelines are measured while they sample: each step in its bin, branches and padding apart, pictures unchanged."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pipelines
import pytest
import torch
from PIL import Image

from surgery.activations.noised import Sample, measure_noised
from surgery.activations.recorder import Recorder
from surgery.activations.trajectories import StepClock, measure_trajectories, watched
from surgery.anatomy.from_model import read_anatomy
from surgery.errors import InputError
from surgery.pipelines.draw import draw_pictures
from surgery.pipelines.guidance import Guidance, find_guidance
from surgery.pipelines.noised import add_noise

NAMES = ["demo", "flux", "sd3", "auraflow"]
PROMPTS = ["red apple", "two dogs and a house"]
TOKENS = {"red apple": 3, "two dogs and a house": 6}  # with the one that ends a text
BRANCHES = ("unconditional", "conditional")


@pytest.fixture(scope="module")
def pipeline():
    made = {}

    def get(name):
        if name not in made:
            made[name] = pipelines.build_pipeline(name)
        return made[name]

    return get


def recorder_of(pipe, **options):
    return Recorder(pipe.transformer, read_anatomy(pipe.transformer), **options)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_those_of_the_unmeasured_model(pipeline, name):
    pipe, call = pipeline(name)
    before = draw_pictures(pipe, PROMPTS, seed=3, batch_size=2, call=call)
    with watched(pipe, recorder_of(pipe, keep_means=True), find_guidance(pipe, call)) as padding:
        padding.start(PROMPTS)
        measured = draw_pictures(pipe, PROMPTS, seed=3, batch_size=2, call=call)
    after = draw_pictures(pipe, PROMPTS, seed=3, batch_size=2, call=call)
    for one, other, third in zip(before, measured, after, strict=True):
        assert one.image.tobytes() == other.image.tobytes() == third.image.tobytes()
    assert "step" not in vars(pipe.scheduler) and "forward" not in vars(pipe.transformer)
    assert "__call__" not in vars(type(pipe.tokenizer))


@pytest.mark.parametrize(
    ("name", "guidance_scale", "forwards"),
    [
        ("demo", 4.5, (("unconditional",) * 2 + ("conditional",) * 2,)),
        ("demo", 1.0, (("conditional",) * 2,)),
        ("sd3", 5.0, (("unconditional",) * 2 + ("conditional",) * 2,)),
        ("auraflow", 3.5, (("unconditional",) * 2 + ("conditional",) * 2,)),
        ("flux", 0.0, (("conditional",) * 2,)),
    ],
)
def test_the_branches_of_a_pipeline_are_found(pipeline, name, guidance_scale, forwards):
    pipe, call = pipeline(name)
    assert find_guidance(pipe, {**call, "guidance_scale": guidance_scale}) == Guidance(forwards)


def test_branches_in_forwards_of_their_own_are_found(pipeline):
    pipe, call = pipeline("flux")
    found = find_guidance(pipe, {**call, "true_cfg_scale": 4.0, "negative_prompt": ["blurry", "blurry"]})
    assert found == Guidance((("conditional",) * 2, ("unconditional",) * 2))
    assert [found.branches_of_rows(number, 3) for number in (0, 1, 2)] == [
        ["conditional"] * 3,
        ["unconditional"] * 3,
        ["conditional"] * 3,
    ]


def test_every_step_begins_with_its_first_forward():
    """Also after one in which the pipeline left the unconditional forward out."""
    guidance = Guidance((("conditional",) * 2, ("unconditional",) * 2))
    clock = StepClock(SimpleNamespace(settle=lambda share: None), guidance, lambda: None)
    clock.count_forward()
    clock.settle(0.5)
    assert list(clock.branches_of_rows(2)) == ["conditional"] * 2
    clock.count_forward()
    assert list(clock.branches_of_rows(2)) == ["unconditional"] * 2


def test_rows_follow_the_pattern_whatever_the_batch():
    halves = Guidance((("unconditional", "unconditional", "conditional", "conditional"),))
    assert halves.branches_of_rows(0, 6) == ["unconditional"] * 3 + ["conditional"] * 3
    turns = Guidance((("unconditional", "conditional", "unconditional", "conditional"),))
    assert turns.branches_of_rows(0, 6) == ["unconditional", "conditional"] * 3
    with pytest.raises(InputError, match="a forward of 3 rows is not laid out as one of 4"):
        halves.branches_of_rows(0, 3)


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_counted_in_its_bin(pipeline, name):
    pipe, call = pipeline(name)
    recorder, guidance = recorder_of(pipe), find_guidance(pipe, call)
    measure_trajectories(pipe, recorder, guidance, PROMPTS, [0, 1], call)
    shares = [float(t) / 1000 for t in pipe.scheduler.timesteps]
    expected = np.bincount([min(int(share * 10), 9) for share in shares], minlength=10) * len(PROMPTS)
    profile = recorder.profile({})
    for (_, _, part), sums in profile.streams.items():
        assert sums.samples.tolist() == expected.tolist(), part
    assert {part for _, _, part in profile.components} == set(guidance.branches)


def a_pipeline_that_calls(arguments_of):
    """A stand-in for a pipeline: it calls its transformer with what `arguments_of` makes of the prompts."""
    scheduler = type("Scheduler", (), {"step": lambda self, *_: None})()

    class Transformer(torch.nn.Module):
        def forward(self, x, t, cap_feats):
            raise AssertionError("no forward is run")

    class Pipeline:
        transformer = Transformer()

        def __call__(self, prompt, generator, output_type):
            self.transformer(*arguments_of(prompt))
            self.scheduler.step(None)

    Pipeline.scheduler = scheduler
    return Pipeline()


def test_texts_that_are_a_list_with_a_tensor_a_row_are_told_apart():
    """As Z-Image gives them: pictures and texts are lists, and texts have unequal lengths."""

    def with_guidance(prompts):
        texts = [torch.full((len(prompt), 4), float(len(prompt))) for prompt in prompts]
        negative = [torch.zeros(1, 4) for _ in prompts]
        return [torch.zeros(3, 1, 2, 2)] * 4, torch.zeros(4), texts + negative

    found = find_guidance(a_pipeline_that_calls(with_guidance), {})
    assert found.forwards == (("conditional", "conditional", "unconditional", "unconditional"),)


def test_a_transformer_that_is_not_told_the_prompts_is_refused():
    def without_text(prompts):
        return torch.zeros(2, 3, 4), torch.zeros(2), torch.zeros(2, 5, 4)

    with pytest.raises(InputError, match="nothing that its transformer was given tells them apart"):
        find_guidance(a_pipeline_that_calls(without_text), {})


@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_padding_is_told_from_text(pipeline, name):
    pipe, call = pipeline(name)
    recorder, guidance = recorder_of(pipe), find_guidance(pipe, call)
    measure_trajectories(pipe, recorder, guidance, PROMPTS, [0, 1], call)
    profile = recorder.profile({})
    encoders = 2 if name == "sd3" else 1  # SD3's text is CLIP's tokens, then T5's
    steps = len(pipe.scheduler.timesteps)
    text = profile.streams["transformer_blocks", "encoder_hidden_states", "conditional:text"]
    assert text.tokens.sum() == steps * encoders * sum(TOKENS.values())
    padding = profile.streams["transformer_blocks", "encoder_hidden_states", "conditional:padding"]
    whole = profile.streams["transformer_blocks", "encoder_hidden_states", "conditional"]
    assert (text.tokens + padding.tokens).tolist() == whole.tokens.tolist()
    assert np.allclose(text.angle + padding.angle, whole.angle, rtol=1e-12)
    ff = profile.moments("transformer_blocks.0.ff_context", "hidden_states", "conditional")
    assert ff.count == text.tokens.sum()
    if name == "sd3":
        empty = profile.streams["transformer_blocks", "encoder_hidden_states", "unconditional:text"]
        assert empty.tokens.sum() == steps * encoders * len(PROMPTS)


def test_a_mask_among_the_arguments_counts_before_tokenizers(pipeline):
    from surgery.activations.padding import PaddingFinder
    from surgery.activations.token_masks import TokenArgument

    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    finder = PaddingFinder()
    given = TokenArgument(
        {"encoder_attention_mask": mask}, ["conditional"] * 2, "encoder_hidden_states", (2, 3, 8), is_picture=False
    )
    assert finder.find_mask(given).tolist() == mask.bool().tolist()
    image = TokenArgument(
        {"encoder_attention_mask": mask}, ["conditional"] * 2, "hidden_states", (2, 3, 8), is_picture=True
    )
    assert finder.find_mask(image) is None
    full = replace(given, arguments={"encoder_attention_mask": torch.ones(2, 3)})
    assert finder.find_mask(full).all()  # known: all of them are text, in this forward too


@pytest.mark.parametrize("name", NAMES)
def test_a_noised_picture_is_one_forward_at_its_time(pipeline, name, monkeypatch):
    pipe, call = pipeline(name)
    recorder, seen = recorder_of(pipe), []
    picture = Image.effect_noise((70, 90), 60).convert("RGB")
    handle = pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args or tuple(kwargs.values()), kwargs)), with_kwargs=True
    )
    for number, share in enumerate((0.0, 0.31, 1.0)):
        measure_noised(pipe, recorder, Sample(picture, "red apple", share, number), call)
    handle.remove()
    profile = recorder.profile({})
    for (_, _, part), sums in profile.streams.items():
        assert sums.samples.tolist() == [1, 0, 0, 1, 0, 0, 0, 0, 0, 1], part
    assert {part.partition(":")[0] for _, _, part in profile.streams} == {"conditional"}
    times = [float(kwargs["timestep"].flatten()[0]) for _, kwargs in seen]
    scale = 1000 if name in ("demo", "sd3") else 1
    assert times == pytest.approx([0.0, 0.31 * scale, 1.0 * scale], abs=1e-4)
    assert "set_timesteps" not in vars(pipe.scheduler) and "step" not in vars(pipe.scheduler)


def test_a_share_of_the_noise_range_is_its_timestep():
    from diffusers import DDPMScheduler

    scheduler, clean = DDPMScheduler(), torch.zeros(1, 4, 2, 2)
    found = [int(add_noise(scheduler, clean, clean, share)[0]) for share in (0.0, 0.0009, 0.25, 0.5, 0.9999, 1.0)]
    assert found == [0, 0, 250, 500, 999, 999]


def test_a_noised_picture_is_what_its_equation_says(pipeline):
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    time, mixed = add_noise(FlowMatchEulerDiscreteScheduler(), clean, noise, 0.25)
    assert float(time) == 250 and torch.equal(mixed, 0.75 * clean + 0.25 * noise)
    scheduler = DDPMScheduler()
    time, mixed = add_noise(scheduler, clean, noise, 1.0)
    kept = scheduler.alphas_cumprod[999]
    assert int(time) == 999 and torch.allclose(mixed, kept.sqrt() * clean + (1 - kept).sqrt() * noise)


def test_the_clean_picture_is_what_the_transformer_gets_at_time_zero(pipeline):
    """What enters is the encoded picture, packed as the pipeline packs its own latents."""
    pipe, call = pipeline("flux")
    seen = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True
    )
    picture = Image.new("RGB", (64, 64), "red")
    measure_noised(pipe, recorder_of(pipe), Sample(picture, "red apple", 0.0, 5), call)
    handle.remove()
    pixels = pipe.image_processor.preprocess(picture, height=64, width=64)
    with torch.no_grad():
        latents = pipe.vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(5))
    latents = (latents - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
    packed = pipe._pack_latents(latents, *latents.shape)
    unpatched = packed.view(4, 4, 1, 2, 2)
    assert torch.equal(seen[0], packed) and torch.equal(unpatched[0, 0, 0], latents[0, 0, :2, :2])


def test_a_call_that_the_pipeline_refuses_is_said(pipeline):
    pipe, call = pipeline("demo")
    with pytest.raises(InputError, match="PixArtAlphaPipeline refuses the call"):
        find_guidance(pipe, {**call, "height": 63})
