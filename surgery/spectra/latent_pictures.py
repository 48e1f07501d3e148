"""What a pipeline's scheduler steps on -> pictures of latents (batch, channels, height, width), and decoded ones.

Tokens are unpacked by packing numbers as the pipeline does, and looking where each has gone. How a pipeline decodes its
latents is tried, and taken for known where its own pictures come out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from surgery.diffusers_internals import packings_by_pipeline
from surgery.errors import InputError, RefusedError
from surgery.pipelines.encoded import takes_videos

GREY, COLOURS = 1, 3
PICTURE_NDIM, VIDEO_NDIM, TOKENS_NDIM = 4, 5, 3
TOLERANCE = 0.02  # between a picture that is decoded here and the pipeline's own, of values from 0 to 1


@dataclass(frozen=True)
class LatentLayout:
    """How samples of a pipeline are pictures: `order` says which number of a sample is which of a picture's.

    `shape` is that of one picture of latents (channels, height, width).
    """

    shape: tuple[int, int, int]
    order: torch.Tensor | None = None

    def pictures(self, samples: torch.Tensor, count: int) -> torch.Tensor:
        """Samples of a batch of so many pictures as (batch, channels, height, width).

        Raises:
            RefusedError: there are other rows than those of the pictures, or than copies of them.
        """
        flat = refuse_other_rows(samples, count)[:count].flatten(1)
        order = self.order
        return (flat if order is None else flat[:, order.to(flat.device)]).reshape(-1, *self.shape)


def refuse_other_rows(samples: torch.Tensor, count: int) -> torch.Tensor:
    """The samples themselves; RefusedError where they are neither a row a picture, nor copies of such rows, one for
    each branch of guidance (as DiT's pipeline has it).
    """
    times, rest = divmod(len(samples), count)
    copies = [samples[:count]] * times
    if rest or not times or not torch.equal(torch.cat(copies), samples):
        raise RefusedError(
            f"the scheduler is given {len(samples)} rows for {count} pictures, which are no copies of one another; "
            "which are the pictures is not known"
        )
    return samples


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
        packings = packings_by_pipeline(pipe, numbers)
        packed = next((found for found in packings if found.shape[1:] == sample.shape[1:]), None)
    if shape is None or packed is None:
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


@dataclass(frozen=True)
class Decoding:
    """How latents become what an autoencoder decodes: latents * scale + shift, each a number a channel, or one."""

    vae: Any
    scale: torch.Tensor
    shift: torch.Tensor

    @torch.no_grad()
    def pictures(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (batch, channels, height, width) as pictures (batch, 3, height, width) from 0 to 1.

        Raises:
            RefusedError: the autoencoder decodes no such latents.
        """
        decoded = latents if self.vae is None else self._decoded(latents)
        return _in_colours((decoded.float().cpu() / 2 + 0.5).clamp(0, 1))

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        given = latents.to(self.vae.device, self.vae.dtype) * self.scale.to(self.vae.device, self.vae.dtype)
        given = given + self.shift.to(given)
        is_video = takes_videos(self.vae)
        try:
            decoded: torch.Tensor = self.vae.decode(given.unsqueeze(2) if is_video else given, return_dict=False)[0]
        except (ValueError, RuntimeError, TypeError, LookupError) as error:
            reason = str(error).splitlines()[0]
            raise RefusedError(f"{type(self.vae).__name__} does not decode these latents: {reason}") from None
        return decoded[:, :, 0] if is_video else decoded


def find_decoding(pipe: Any, latents: torch.Tensor, own: torch.Tensor) -> Decoding:
    """How a pipeline has decoded latents to its own pictures (batch, 3, height, width) from 0 to 1.

    Raises:
        RefusedError: in no way that is known.
    """
    for decoding in _known_decodings(getattr(pipe, "vae", None)):
        decoded = decoding.pictures(latents)
        if decoded.shape == own.shape and float((decoded - own).abs().max()) <= TOLERANCE:
            return decoding
    raise RefusedError(
        f"how {type(pipe).__name__} decodes its latents is not known: decoded here, they are not its own pictures; "
        "give --no-pictures, for the bands of the latents alone"
    )


def _known_decodings(vae: Any) -> Iterator[Decoding]:
    """By an autoencoder's config: its statistics by channel, its scale and shift, or its scale alone."""
    config = {} if vae is None else vae.config
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    scale = 1 / (config.get("scaling_factor") or 1.0)
    if mean is not None and deviation is not None:
        by_channel = [torch.tensor(values).view(1, -1, 1, 1) for values in (deviation, mean)]
        yield Decoding(vae, by_channel[0] * scale, by_channel[1])
    if config.get("shift_factor"):
        yield Decoding(vae, torch.tensor(scale), torch.tensor(config["shift_factor"]))
    yield Decoding(vae, torch.tensor(scale), torch.tensor(0.0))


def pictures_of_answer(pipe: Any, answer: Any) -> torch.Tensor:
    """What a pipeline called with `output_type="np"` returns, as (batch, 3, height, width) from 0 to 1.

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
            f"{type(pipe).__name__} returns an array of {array.shape}, and bands are of pictures; give --call "
            "num_frames=1"
        )
    return _in_colours(torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).float())


def _in_colours(pictures: torch.Tensor) -> torch.Tensor:
    """Grey pictures (batch, 1, height, width) with three equal channels, others as they are."""
    return pictures.expand(-1, COLOURS, -1, -1) if pictures.shape[1] == GREY else pictures
