"""A picture -> the latents of a pipeline's autoencoder, scaled as its transformer is given them."""

from typing import Any

import torch
from PIL import Image, ImageOps

from surgery.diffusers_internals import encode_by_pipeline
from surgery.errors import RefusedError

IMAGE_NDIM = 4  # of latents (batch, channels, height, width)


@torch.no_grad()
def encode_picture(pipe: Any, image: Image.Image, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """A picture as latents (1, channels, height, width) in float32, cut to the middle where its sides differ.

    An autoencoder of videos is given a video of one frame. Where its config does not say how its latents are scaled,
    they are those that the pipeline makes of a picture that it is given. Of a pipeline without an autoencoder they are
    its pixels, from -1 to 1.

    Raises:
        RefusedError: the autoencoder encodes no pictures, or does not say how its latents are scaled.
    """
    from diffusers.image_processor import VaeImageProcessor

    vae = pipe.vae
    fitted = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    processor = getattr(pipe, "image_processor", None) or VaeImageProcessor()
    pixels = processor.preprocess(fitted, height=height, width=width)
    if vae is None:
        return pixels.float()
    given = pixels.to(vae.device, vae.dtype)
    try:
        scaling = _scaling_of(vae)
        if scaling is None:
            latents = _of_pipeline(pipe, given, generator)
        else:
            shift, scale = scaling
            latents = (_of_autoencoder(vae, given, generator).float() - shift) * scale
    except (ValueError, RuntimeError) as error:
        raise RefusedError(f"{type(vae).__name__} encodes no pictures: {str(error).splitlines()[0]}") from None
    if latents.ndim != IMAGE_NDIM:
        raise RefusedError(f"{type(vae).__name__} makes no (batch, channels, height, width) latents of pictures")
    return latents.float().cpu()


def takes_videos(vae: Any) -> bool:
    """Whether an autoencoder works on (batch, channels, frames, height, width)."""
    return any(isinstance(module, torch.nn.Conv3d) for module in vae.modules())


def _of_pipeline(pipe: Any, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    latents = encode_by_pipeline(pipe, pixels, generator)
    if latents is None:
        raise RefusedError(
            f"{type(pipe.vae).__name__} does not say how its latents are scaled: its config has neither scaling_factor "
            "nor latents_mean and latents_std"
        )
    return latents


def _of_autoencoder(vae: Any, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    is_video = takes_videos(vae)
    encoded = vae.encode(pixels.unsqueeze(2) if is_video else pixels)
    if hasattr(encoded, "latent_dist"):
        latents = encoded.latent_dist.sample(generator)
    else:
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent
    found: torch.Tensor = latents.squeeze(2) if is_video else latents
    return found


def _scaling_of(vae: Any) -> tuple[torch.Tensor | float, torch.Tensor | float] | None:
    """What is taken from latents, and what they are multiplied with then; None where it is not said."""
    mean, deviation = _statistic(vae, "latents_mean"), _statistic(vae, "latents_std")
    scale = vae.config.get("scaling_factor")
    if mean is not None and deviation is not None:
        return mean, (scale or 1.0) / deviation
    return None if scale is None else (vae.config.get("shift_factor") or 0.0, scale)


def _statistic(vae: Any, name: str) -> torch.Tensor | None:
    """A number a channel, (1, channels, 1, 1), of the config or among the weights."""
    found = vae.config.get(name)
    values = dict(vae.named_buffers()).get(name) if found is None else torch.tensor(found)
    return None if values is None else values.float().to(vae.device).view(1, -1, 1, 1)
