"""Latents of any pipeline are laid out as pictures and decoded as the pipeline itself does, or refused."""

from types import SimpleNamespace

import pipelines
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from surgery.diffusers_internals import packings_by_pipeline
from surgery.dit import ClassDiTPipeline
from surgery.dit.tiny_pipelines import LABELS, tiny_dit
from surgery.errors import InputError, RefusedError
from surgery.pipelines.draw import draw_pictures
from surgery.spectra.latent_pictures import Decoding, LatentLayout, find_decoding, find_layout
from surgery.spectra.sampling import sample_batch

PROMPTS, SEEDS = ["red apple", "two dogs"], [3, 4]


def build_grey():
    """A pipeline of ours without an autoencoder: one channel, whose pictures have three equal ones."""
    transformer = tiny_dit("adaln_zero", sample_size=16, in_channels=1)
    pipe = ClassDiTPipeline(transformer, EulerDiscreteScheduler(), id2label=LABELS)
    pipe.set_progress_bar_config(disable=True)
    return pipe, {"num_inference_steps": 3}


@pytest.fixture(scope="module")
def sampled():
    made = {}

    def get(name):
        if name not in made:
            pipe, call = build_grey() if name == "grey" else pipelines.build_pipeline(name)
            prompts = {"dit": ["0", "goldfish"], "grey": ["cat", "dog"]}.get(name, PROMPTS)
            made[name] = (pipe, call, prompts, sample_batch(pipe, prompts, SEEDS, call))
        return made[name]

    return get


@pytest.mark.parametrize("name", ["demo", "flux", "sd3", "dit", "grey"])
def test_latents_decode_to_the_pipelines_own_pictures(sampled, name):
    """Packed, shifted or neither; and its pictures are those that `generate` draws, to the 8 bits of a PNG."""
    pipe, call, prompts, found = sampled(name)
    find_decoding(pipe, found.latents, found.pictures)
    drawn = draw_pictures(pipe, prompts, seed=SEEDS[0], batch_size=2, call=call)
    for drawing, picture in zip(drawn, found.pictures, strict=True):
        own = torch.frombuffer(bytearray(drawing.image.tobytes()), dtype=torch.uint8).reshape(*picture.shape[1:], 3)
        assert (own.permute(2, 0, 1) / 255 - picture).abs().max() <= 0.5 / 255 + 1e-6
    assert "step" not in vars(pipe.scheduler)


@pytest.mark.parametrize("name", ["demo", "flux", "dit"])
def test_the_last_prediction_is_where_the_trajectory_ends(sampled, name):
    """Of samplers whose last step goes to no noise, to what float32 keeps; and the first state is the noise."""
    _, _, _, found = sampled(name)
    assert len(found.steps) == 3 and found.steps[0].share > found.steps[-1].share
    torch.testing.assert_close(found.steps[-1].predicted, found.latents, atol=0.02, rtol=0.02)
    assert found.steps[0].state.std() == pytest.approx(1, abs=0.2)


def test_unpacking_undoes_packing(sampled):
    """Also of pictures that are no squares."""
    pipe, *_ = sampled("flux")
    latents = torch.randn(2, pipe.vae.config.latent_channels, 6, 10)
    packed = next(packings_by_pipeline(pipe, latents))
    layout = find_layout(pipe, packed, (6 * 8, 10 * 8))
    assert torch.equal(layout.pictures(packed, 2), latents)
    with pytest.raises(RefusedError, match=r"FluxPipeline samples tokens \(15, 4\), and how its latents are packed"):
        find_layout(pipe, packed, (7 * 8, 9 * 8))
    with pytest.raises(InputError, match=r"FluxPipeline samples \(15, 4\), which are no pictures"):
        find_layout(pipe, packed, None)


def test_a_pipeline_that_packs_in_a_way_of_its_own_is_refused():
    """It takes other arguments than Flux's, or none at all."""
    vae = SimpleNamespace(config=SimpleNamespace(latent_channels=4))
    for pipe in (SimpleNamespace(vae=vae, _pack_latents=lambda latents: latents), SimpleNamespace(vae=vae)):
        with pytest.raises(RefusedError, match=r"how its latents are packed into them is not known"):
            find_layout(pipe, torch.zeros(1, 16, 16), (64, 64))


def test_sounds_and_videos_are_no_pictures():
    """A video of one frame is one."""
    pipe = SimpleNamespace(vae=None)
    with pytest.raises(InputError, match=r"samples \(64, 1024\), which are no pictures of channels, height and width"):
        find_layout(pipe, torch.zeros(1, 64, 1024), None)
    with pytest.raises(InputError, match=r"samples videos, .* give --call num_frames=1, which draws a video of one"):
        find_layout(pipe, torch.zeros(1, 16, 5, 8, 8), (64, 64))
    for shape in ((1, 16, 1, 8, 8), (1, 1, 16, 8, 8)):
        assert find_layout(pipe, torch.zeros(shape), (64, 64)).shape == (16, 8, 8)


def test_another_decoding_is_noticed(sampled):
    """The saboteur: with another scale the pictures are others, and it is said what to give."""
    pipe, _, _, found = sampled("sd3")
    with pytest.raises(
        RefusedError, match=r"how StableDiffusion3Pipeline decodes its latents is not known: .*--no-pict"
    ):
        find_decoding(pipe, 3 * found.latents, found.pictures)


def test_a_pipeline_of_pixels_needs_no_decoder():
    pixels = torch.tensor([-2.0, -1.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    own = torch.tensor([0, 0, 0.5, 1]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    decoding = find_decoding(SimpleNamespace(), pixels, own)
    assert isinstance(decoding, Decoding) and decoding.vae is None
    coloured = torch.cat([pixels, -pixels, pixels], dim=1)
    assert find_decoding(SimpleNamespace(), coloured, (coloured / 2 + 0.5).clamp(0, 1)).vae is None


def test_rows_of_two_branches_are_one_picture_where_they_are_alike():
    """As DiT's pipeline steps them; other rows are refused, for they might be anything."""
    rows = torch.randn(2, 4, 8, 8)
    layout = LatentLayout((4, 8, 8))
    assert torch.equal(layout.pictures(torch.cat([rows, rows]), 2), rows)
    for samples in (torch.cat([rows, -rows]), torch.cat([rows, rows[:1]])):
        with pytest.raises(RefusedError, match=r"given [43] rows for 2 pictures, which are no copies of one another"):
            layout.pictures(samples, 2)
