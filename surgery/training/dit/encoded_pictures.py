"""Pictures -> what the model is to make: pixels from -1 to 1, or latents of an autoencoder, kept on a shelf.

Chunks are kept under the hashes of their pictures and of the autoencoder, so that another run with the same pictures
finds them. A posterior is sampled once, and scaled as the autoencoder's config says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from surgery.pipelines.encoded import encode_picture
from surgery.progress import show_progress
from surgery.training.dit.components import hash_weights
from surgery.training.dit.config import GREY, TrainConfig
from surgery.training.dit.pictures import Picture
from surgery.training.shelf import Rows, Shelf, rows_of

CHUNK = 64  # pictures in a file
HELD_BYTES = 2**31  # of pictures that are kept in memory: reading rows one by one takes as long as a small step
CLEAN = "clean"


@dataclass(frozen=True)
class Encoder:
    """What makes of a picture what the model works on; `vae` is None where that is its pixels."""

    vae: Any
    image_processor: VaeImageProcessor
    size: int
    channels: int

    def encode(self, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
        """(1, channels, height, width)."""
        return encode_picture(self, image, self.size, self.size, generator)


@dataclass(frozen=True)
class Held:
    """Rows in memory."""

    clean: torch.Tensor

    def __len__(self) -> int:
        return len(self.clean)

    def read(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """These rows (B, channels, height, width), as `Rows`."""
        return {CLEAN: self.clean[list(numbers)]}


def make_encoder(config: TrainConfig, vae: Any) -> Encoder:
    """The encoder of a config; see `Encoder`."""
    channels = config.data.channels
    processor = VaeImageProcessor(vae_scale_factor=1, do_convert_grayscale=channels == GREY)
    return Encoder(vae, processor, config.data.size, channels)


def encode_pictures(
    pictures: Sequence[Picture], encoder: Encoder, shelf: Shelf, label: str = "encoding pictures"
) -> Rows | Held:
    """The rows of pictures, in their order.

    Raises:
        InputError: the shelf can't be written.
        RefusedError: the autoencoder encodes no pictures.
    """
    recipe = {"autoencoder": hash_weights(encoder.vae), "size": encoder.size, "channels": encoder.channels}
    files = []
    with show_progress(len(pictures), unit="picture", label=label) as meter:
        for chunk in _chunks(pictures):
            own = {**recipe, "pictures": [picture.key for picture in chunk]}
            files.append(shelf.find_or_make(own, partial(_encode, chunk, encoder)))
            meter.advance(len(chunk))
    rows = rows_of(files, [len(chunk) for chunk in _chunks(pictures)])
    size = sum(file.stat().st_size for file in files)
    return Held(rows.read(range(len(rows)))[CLEAN]) if size <= HELD_BYTES else rows


def _chunks(pictures: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
    for start in range(0, len(pictures), CHUNK):
        yield pictures[start : start + CHUNK]


def _encode(chunk: Sequence[Picture], encoder: Encoder) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {CLEAN: torch.cat([encoder.encode(picture.open(), generator) for picture in chunk])}
