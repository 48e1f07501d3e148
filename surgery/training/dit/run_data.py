"""A config -> the data of its run: the pictures, what the model is given of them, and which are held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from surgery.errors import InputError
from surgery.files import write_whole
from surgery.training.dit.config import TrainConfig
from surgery.training.dit.encoded_pictures import CLEAN, Held, encode_pictures, make_encoder
from surgery.training.dit.held_out_split import Split, split_pictures
from surgery.training.dit.pictures import Picture, names_of
from surgery.training.shelf import Rows, Shelf

HELD_OUT = "held_out"


@dataclass(frozen=True)
class RunData:
    """Row k of `clean` is picture k, and its label is `names[numbers[k]]`."""

    pictures: Sequence[Picture]
    clean: Rows | Held
    numbers: torch.Tensor
    names: tuple[str, ...]
    split: Split

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the model works on."""
        channels, height, width = self.clean.read([0])[CLEAN].shape[1:]
        return channels, height, width


def prepare_data(config: TrainConfig, pictures: Sequence[Picture], vae: Any, shelf: Shelf) -> RunData:
    """The data of a run; raises SpecError where there are too few pictures."""
    validation, seed = config.validation, config.settings.seed
    by_label = config.text_encoder is None
    try:
        split = split_pictures(pictures, validation.share, validation.pictures, seed, by_label=by_label)
    except InputError as error:
        raise config.fault("data.pictures", str(error)) from None
    names = names_of(pictures)
    numbers = torch.tensor([names[picture.label] for picture in pictures])
    return RunData(pictures, encode_pictures(pictures, make_encoder(config, vae), shelf), numbers, tuple(names), split)


def write_held_out(folder: Path, data: RunData, size: int) -> None:
    """The held-out pictures as files, and their labels, one a line: what `surgery evaluate --reference` takes."""
    (folder / HELD_OUT).mkdir(exist_ok=True)
    for number in data.split.held_out:
        path = folder / HELD_OUT / f"{number:06}.png"
        if not path.exists():
            image = data.pictures[number].open().convert("RGB")
            ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS).save(path)
    labels = [data.pictures[number].label for number in data.split.held_out]
    write_whole(folder / f"{HELD_OUT}.txt", "\n".join(labels) + "\n")
