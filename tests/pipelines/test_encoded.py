"""Pictures as latents of the autoencoders that pipelines have: what diffusers' own pipelines make of them."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from family_pipelines import family_pipeline
from PIL import Image

from surgery.errors import RefusedError
from surgery.pipelines.encoded import encode_picture
from surgery.pipelines.noised import pack_latents, predict_noised

SIDE = 64
VIDEO_SIZES = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "latents_mean": [0.1, -0.2, 0.3, 0.4],
}
VIDEO_SIZES["latents_std"] = [2.0, 1.5, 0.5, 1.25]


def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def seeded():
    return torch.Generator().manual_seed(3)


def with_autoencoder(name, autoencoder):
    torch.manual_seed(0)
    pipe, call = family_pipeline(name)
    pipe.register_modules(vae=autoencoder(**VIDEO_SIZES).eval())
    return pipe, call


def test_a_picture_is_what_diffusers_own_pipeline_starts_from():
    """QwenImageImg2ImgPipeline, whose autoencoder takes videos and has a mean and a deviation by channel."""
    pipe, _ = with_autoencoder("qwen", diffusers.AutoencoderKLQwenImage)
    own = diffusers.QwenImageImg2ImgPipeline(**pipe.components)
    pixels = VaeImageProcessor().preprocess(picture(), height=SIDE, width=SIDE).unsqueeze(2)
    expected = own._encode_vae_image(pixels, seeded())
    encoded = encode_picture(pipe, picture(), SIDE, SIDE, seeded())
    torch.testing.assert_close(encoded, expected[:, :, 0])


def hunyuan_image_autoencoder(**_):
    return diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32, 32, 32, 32, 32),
        layers_per_block=1,
        spatial_compression_ratio=32,
        sample_size=SIDE,
        scaling_factor=0.75,
    )


@pytest.mark.parametrize(
    ("name", "autoencoder"),
    [
        ("qwen", diffusers.AutoencoderKLQwenImage),
        ("wan", diffusers.AutoencoderKLWan),
        ("hunyuan-image", hunyuan_image_autoencoder),
    ],
    ids=["qwen", "wan", "hunyuan-image"],
)
def test_a_noised_picture_is_predicted(name, autoencoder):
    """The transformer is given the picture, not the noise of its pipeline: another picture gives another prediction."""
    pipe, call = with_autoencoder(name, autoencoder)
    side = 2 * SIDE if name == "hunyuan-image" else SIDE
    call = {**call, "height": side, "width": side}
    if "negative_prompt" in call:
        call["negative_prompt"] = "blurred"
    clean = encode_picture(pipe, picture(), side, side, seeded())
    noise = torch.randn(clean.shape, generator=seeded())
    one, same, other = (
        predict_noised(pipe, given, noise, 0.5, ["red apple"], call) for given in (clean, clean, clean + 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_statistics_among_the_weights_count_like_those_of_a_config():
    """LTXImageToVideoPipeline, whose autoencoder has them as buffers; its tokens are those of its own packing."""
    sizes = {"latent_channels": 4, "block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 8, 8, 8)}
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLLTXVideo(
        **sizes, layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5, scaling_factor=0.5
    ).eval()
    vae.latents_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.4]))
    vae.latents_std.copy_(torch.tensor([2.0, 1.5, 0.5, 1.25]))
    pipe, _ = family_pipeline("ltx")
    pipe.register_modules(vae=vae)
    pixels = VaeImageProcessor().preprocess(picture(), height=SIDE, width=SIDE).unsqueeze(2)
    with torch.no_grad():
        raw = vae.encode(pixels).latent_dist.sample(seeded())
    normalised = diffusers.LTXImageToVideoPipeline._normalize_latents(raw, vae.latents_mean, vae.latents_std, 0.5)
    encoded = encode_picture(pipe, picture(), SIDE, SIDE, seeded())
    torch.testing.assert_close(encoded, normalised[:, :, 0])
    tokens = pipe._pack_latents(normalised)
    assert torch.equal(pack_latents(pipe, normalised[:, :, 0], torch.empty_like(tokens)), tokens)


class Frames:
    """A pipeline without a packing of its own."""


def test_latents_become_a_video_of_one_frame_where_the_transformer_is_given_one():
    latents = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert torch.equal(pack_latents(Frames(), latents, torch.empty(1, 2, 1, 3, 4))[:, :, 0], latents)
    assert torch.equal(pack_latents(Frames(), latents, torch.empty(1, 1, 2, 3, 4))[:, 0], latents)
    with pytest.raises(RefusedError, match="give --call num_frames=1, for a video of one"):
        pack_latents(Frames(), latents, torch.empty(1, 2, 5, 3, 4))


def test_latents_are_those_of_a_pipeline_whose_autoencoder_does_not_say_how_they_are_scaled():
    """FLUX.2 keeps their statistics in a layer, behind a packing of its own."""
    pipe, call = family_pipeline("klein")
    pipe.vae.bn.running_mean.normal_()
    clean = encode_picture(pipe, picture(), SIDE, SIDE, seeded())
    pixels = VaeImageProcessor().preprocess(picture(), height=SIDE, width=SIDE)
    with torch.no_grad():
        torch.testing.assert_close(clean, pipe._encode_vae_image(pixels, seeded()))
    noise = torch.randn(clean.shape, generator=seeded())
    one, other = (predict_noised(pipe, given, noise, 0.5, ["red apple"], call) for given in (clean, clean + 1))
    assert not torch.equal(one, other)


def test_an_autoencoder_that_does_not_say_how_its_latents_are_scaled_is_refused():
    pipe, _ = family_pipeline("sana")
    pipe.register_modules(vae=family_pipeline("klein")[0].vae)
    with pytest.raises(RefusedError, match="AutoencoderKLFlux2 does not say how its latents are scaled"):
        encode_picture(pipe, picture(), SIDE, SIDE, seeded())
