"""Where a config says that pictures come from -> pictures with labels: the digits, the emoji, or a folder's."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from surgery.errors import InputError
from surgery.files import expand_home
from surgery.training.dit.config import DIGITS, EMOJI, TrainConfig
from surgery.training.dit.joined_config import NAME_OF_CLASS
from surgery.training.dit.picture_folder import read_captioned, read_classes
from surgery.training.shelf import Shelf

DIGIT_WHITE = 16.0  # the largest value of scikit-learn's digits


@dataclass(frozen=True)
class Picture:
    """A picture: the hash of what it is made of, the name of its class or its caption, and how it is opened."""

    key: str
    label: str
    open: Callable[[], Image.Image]


@dataclass(frozen=True)
class DrawnEmoji:
    """An emoji as it is handed over by whoever draws them: its caption, the name of its group, its picture."""

    caption: str
    group: str
    image: Image.Image


DrawEmoji = Callable[[], Sequence[DrawnEmoji]]


def read_pictures(config: TrainConfig, shelf: Shelf, draw_emoji: DrawEmoji) -> list[Picture]:
    """All pictures of a config, each with its label: the name of its class, or with a text encoder its text.

    Raises:
        SpecError: the folder is not usable as the config has it, with the place that names it.
        InputError: what draws or holds the pictures is not installed.
    """
    caption = config.data.caption
    if config.data.pictures == DIGITS:
        found = _digits()
    elif config.data.pictures == EMOJI:
        found = _emoji(draw_emoji(), has_texts=config.text_encoder is not None and caption is None)
    else:
        found = _of_folder(config, shelf)
    if caption is None:
        return found
    return [Picture(one.key, caption.replace(NAME_OF_CLASS, one.label), one.open) for one in found]


def _digits() -> list[Picture]:
    """Scikit-learn's 1,797 digits of 8 x 8 pixels, white on black."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(f"{DIGITS} come with scikit-learn, which is not installed; pip install scikit-learn") from None
    found: Any = load_digits()
    pixels = np.round(found.images * (255 / DIGIT_WHITE)).astype(np.uint8)
    return [_drawn(Image.fromarray(one), str(label)) for one, label in zip(pixels, found.target, strict=True)]


def _emoji(drawn: Sequence[DrawnEmoji], *, has_texts: bool) -> list[Picture]:
    """With texts all of them; of classes those whose names put them in a group."""
    if has_texts:
        return [_drawn(one.image, one.caption) for one in drawn]
    return [_drawn(one.image, one.group) for one in drawn if one.group]


def _drawn(image: Image.Image, label: str) -> Picture:
    content = f"{image.mode} {image.size} ".encode() + image.tobytes()
    return Picture(hashlib.sha256(content).hexdigest(), label, lambda: image)


def _of_folder(config: TrainConfig, shelf: Shelf) -> list[Picture]:
    data = config.data
    folder = config.folder / expand_home(data.pictures)
    reads_captions = config.text_encoder is not None and data.caption is None
    read = read_captioned if reads_captions else read_classes
    try:
        files = read(folder, shelf, crop=data.crop, skip_unreadable=data.skip_unreadable)
    except InputError as error:
        hint = f"; or write a caption with {NAME_OF_CLASS}, where folders are classes" if reads_captions else ""
        raise config.fault("data.pictures", f"{error}{hint}") from None
    return [Picture(one.key, one.label, one.open_square) for one in files]


def names_of(pictures: Sequence[Picture]) -> Mapping[str, int]:
    """The labels, each with its number: in the order of numbers where all are such, else of letters."""
    labels = {one.label for one in pictures}
    are_numbers = all(label.isascii() and label.isdigit() for label in labels)
    return {label: number for number, label in enumerate(sorted(labels, key=int if are_numbers else str))}
