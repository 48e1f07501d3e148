"""What a pipeline's scheduler steps on -> pictures of latents (batch, channels, height, width), and decoded ones.

Tokens are unpacked by packing numbers as the pipeline does, and looking where each has gone. How a pipeline decodes its
latents is tried, and taken for known where its own pictures come out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from surgery.diffusers_internals import pack_by_pipeline
from surgery.errors import InputError, RefusedError

PICTURE_NDIM, VIDEO_NDIM, TOKENS_NDIM = 4, 5, 3
TOLERANCE = 0.02  # between a picture that is decoded here and the pipeline's own, of values from 0 to 1


@dataclass(frozen=True)
class LatentLayout:
    """How samples of a pipeline are pictures: `order` says which number of a sample is which of a picture's.

    `shape` is that of one picture of latents (channels, height, width).
    """

    shape: tuple[int, int, int]
    order: torch.Tensor | None = None

    def pictures(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples of a batch as (batch, channels, height, width)."""
        flat = samples.flatten(1)
        order = self.order
        return (flat if order is None else flat[:, order.to(flat.device)]).reshape(-1, *self.shape)


def find_layout(pipe: Any, sample: torch.Tensor, size: tuple[int, int] | None) -> LatentLayout:
    """The layout of a sample (batch, ...) of a pipeline that draws pictures of this height and width in pixels.

    Raises:
        InputError: it is a video of several frames, or no picture.
        RefusedError: it is packed in a way that is not known.
    """
    shape = tuple(sample.shape[1:])
    if sample.ndim == PICTURE_NDIM:
        return LatentLayout((shape[0], shape[1], shape[2]))
    if sample.ndim == VIDEO_NDIM:
        frames = [axis for axis in (0, 1) if shape[axis] == 1]  # channels first, or frames first
        if not frames:
            raise InputError(
                f"{type(pipe).__name__} samples videos, latents of {min(shape[0], shape[1])} frames or more, and bands "
                "are of pictures; give --call num_frames=1, which draws a video of one"
            )
        return LatentLayout((shape[1 - frames[-1]], shape[2], shape[3]))
    if sample.ndim == TOKENS_NDIM and size is not None:
        return _unpacked(pipe, sample, size)
    raise InputError(
        f"{type(pipe).__name__} samples {tuple(shape)}, which are no pictures of channels, height and width; bands are "
        "of pictures, so give a pipeline that draws some"
    )


def _unpacked(pipe: Any, sample: torch.Tensor, size: tuple[int, int]) -> LatentLayout:
    """The layout of tokens (batch, tokens, channels)."""
    shape = _shape_before_packing(pipe, sample[0].numel(), size)
    packed = None
    if shape is not None:
        numbers = torch.arange(sample[0].numel(), dtype=torch.float64).reshape(1, *shape)
        try:
            packed = pack_by_pipeline(pipe, numbers)
        except (TypeError, ValueError, RuntimeError):  # it packs with other arguments
            packed = None
    if shape is None or packed is None or packed.shape[1:] != sample.shape[1:]:
        raise RefusedError(
            f"{type(pipe).__name__} samples tokens {tuple(sample.shape[1:])}, and how its latents are packed into them "
            "is not known; the bands of this pipeline can't be told"
        )
    return LatentLayout(shape, torch.argsort(packed.flatten().long()))


def _shape_before_packing(pipe: Any, number: int, size: tuple[int, int]) -> tuple[int, int, int] | None:
    """Channels, height and width of latents of so many values in all, for a picture of this size in pixels."""
    channels = getattr(getattr(getattr(pipe, "vae", None), "config", None), "latent_channels", None)
    if not isinstance(channels, int) or channels < 1 or number % channels:
        return None
    height, width = size
    rows = round((number / channels * height / width) ** 0.5)
    columns = number // channels // max(rows, 1)
    return (channels, rows, columns) if channels * rows * columns == number else None


@torch.no_grad()
def decode_latents(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents (batch, channels, height, width) as pictures (batch, 3, height, width) from 0 to 1, as pipelines decode.

    Raises:
        RefusedError: the autoencoder decodes no such latents.
    """
    vae = getattr(pipe, "vae", None)
    if vae is None:
        return (latents.float().cpu() / 2 + 0.5).clamp(0, 1)
    scaled = _as_the_decoder_takes(vae, latents.to(vae.device, vae.dtype))
    try:
        decoded = vae.decode(scaled, return_dict=False)[0]
        if decoded.ndim == VIDEO_NDIM:
            decoded = decoded[:, :, 0]
    except (ValueError, RuntimeError, TypeError, LookupError) as error:
        raise RefusedError(
            f"{type(vae).__name__} does not decode these latents: {str(error).splitlines()[0]}"
        ) from None
    return (decoded.float().cpu() / 2 + 0.5).clamp(0, 1)


def _as_the_decoder_takes(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents with the scale and shift of an autoencoder's config undone."""
    config = vae.config
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and deviation is not None:
        shape = (1, -1, 1, 1)
        scale = 1.0 if config.get("scaling_factor") is None else config.scaling_factor
        latents = latents / scale * torch.tensor(deviation).to(latents).view(shape)
        latents = latents + torch.tensor(mean).to(latents).view(shape)
    else:
        latents = latents / (config.get("scaling_factor") or 1.0) + (config.get("shift_factor") or 0.0)
    is_video = any(isinstance(module, torch.nn.Conv3d) for module in vae.modules())
    return latents.unsqueeze(2) if is_video else latents


def refuse_other_decoding(pipe: Any, latents: torch.Tensor, own: torch.Tensor) -> None:
    """Raise RefusedError where latents do not decode to the pipeline's own pictures (batch, 3, height, width)."""
    decoded = decode_latents(pipe, latents)
    if decoded.shape == own.shape and float((decoded - own).abs().max()) <= TOLERANCE:
        return
    raise RefusedError(
        f"how {type(pipe).__name__} decodes its latents is not known: decoded here, they are not its own pictures; give "
        "--no-pictures, for the bands of the latents alone"
    )


def pictures_of_answer(pipe: Any, answer: Any) -> torch.Tensor:
    """What a pipeline called with `output_type="np"` returns, as (batch, channels, height, width) from 0 to 1.

    Raises:
        InputError: it returns no pictures, or videos of several frames.
    """
    found = getattr(answer, "images", None)
    if found is None:
        found = getattr(answer, "frames", None)
    if found is None:
        raise InputError(f"{type(pipe).__name__} returns no pictures; bands are of pictures")
    array = np.asarray(found)
    if array.ndim == VIDEO_NDIM and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != PICTURE_NDIM:
        raise InputError(
            f"{type(pipe).__name__} returns an array of {array.shape}, and bands are of pictures; give --call num_frames=1"
        )
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).float()
