"""What a training config says, as data: the model, the pictures, how it is trained, measured and sampled."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from surgery.errors import SpecError
from surgery.spec.places import Place
from surgery.training.settings import TrainingSettings

DIGITS, EMOJI = "digits", "emoji"  # pictures that come with a library, or are drawn
SIDES = {DIGITS: 8, EMOJI: 64}  # of theirs, in pixels
GREY, COLOURS = 1, 3
SPECTRAL = "spectral"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """`pictures` are digits, emoji, or a folder; `size` is the side that they are brought to, in pixels.

    `crop` lets pictures of other shapes be scaled and cut to their middle square; `skip_unreadable` lets files be left
    out that are no pictures. With a text encoder, `caption` is the text of a class, with {class} for its name.
    """

    pictures: str
    size: int
    crop: bool = False
    skip_unreadable: bool = False
    caption: str | None = None

    @property
    def channels(self) -> int:
        """Of the pixels."""
        return GREY if self.pictures == DIGITS else COLOURS


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """A `share` of the pictures of each class is held out; at most `pictures` of them are measured, in so many `bins`
    of the noise range, every so many steps.
    """

    share: float = 0.1
    bins: int = 10
    every: int = 500
    pictures: int = 512


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Sheets of samples: `columns` pictures a label, every so many steps (0: none)."""

    steps: int = 20
    guidance_scale: float = 2.5
    columns: int = 8
    every: int = 500


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A config without faults, as far as it alone tells; `model` are fields of `DiT`'s config.

    `folder` is what paths in it are relative to; `text` is that of the file, and `places` are those of its values by
    their dotted names.
    """

    file: str
    folder: Path
    title: str | None
    model: Mapping[str, Any]
    data: DataConfig
    autoencoder: str | None
    text_encoder: str | None
    batch_size: int
    label_dropout: float
    settings: TrainingSettings
    validation: ValidationConfig
    sampling: SamplingConfig
    text: str = ""
    places: Mapping[str, Place] = field(default_factory=dict)

    def overridden(self, *, steps: int | None = None, seed: int | None = None) -> "TrainConfig":
        """The same with what the command line says otherwise."""
        own = self.settings
        settings = replace(own, steps=own.steps if steps is None else steps, seed=own.seed if seed is None else seed)
        return replace(self, settings=settings)

    def fault(self, name: str, text: str) -> SpecError:
        """What is wrong with the value of a dotted name, a line a fault, with its place, or that of its section."""
        place = self.places.get(name) or self.places.get(name.partition(".")[0]) or Place(1, 1)
        return SpecError.of(*(f"{self.file}:{place.line}:{place.column}: {line}" for line in text.split("\n")))
