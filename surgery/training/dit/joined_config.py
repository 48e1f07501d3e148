"""The values of a training config, each read by itself -> the config, and what in it does not go together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgery.dit.config_faults import faults_of_config
from surgery.errors import InputError
from surgery.spec.places import Faults, Place
from surgery.training.dit.config import (
    DIGITS,
    SIDES,
    DataConfig,
    SamplingConfig,
    TrainConfig,
    ValidationConfig,
)
from surgery.training.dit.config_sections import MODEL_DEFAULTS
from surgery.training.settings import TrainingSettings

EMA, LABEL_DROPOUT, BATCH_SIZE = 0.9999, 0.1, 64  # where a config says nothing
OF_BATCHES = ("batch_size", "label_dropout")
NAME_OF_CLASS = "{class}"
OTHER_CHANNELS = 4  # stands for what only an autoencoder, or an encoder of texts, tells


@dataclass
class Found:
    """The values by section (the top is ""), their places by dotted names, and the names of those with a fault."""

    values: Mapping[str, dict[str, Any]]
    places: dict[str, Place]
    faulty: set[str] = field(default_factory=set)

    def place(self, name: str) -> Place:
        """Where a value stands, or the section that it is left out of."""
        return self.places.get(name) or self.places.get(name.partition(".")[0]) or Place(1, 1)

    def is_left_out(self, name: str) -> bool:
        """Whether a value is neither there nor there with a fault."""
        return name not in self.places and name.partition(".")[0] not in self.faulty


def join_config(found: Found, faults: Faults, folder: Path) -> TrainConfig | None:
    """The config; None and faults where it is none."""
    top, data, training = (found.values[name] for name in ("", "data", "training"))
    side = data.get("size") or SIDES.get(data.get("pictures", ""))
    _check_data(found, faults, side)
    settings = _settings_of(found, faults)
    _check_model(found, faults, side)
    validation, sampling = ValidationConfig(**found.values["validation"]), _sampling_of(found, faults)
    if faults.found or settings is None or side is None:
        return None
    return TrainConfig(
        file=faults.file,
        folder=folder,
        title=top.get("title"),
        model=found.values["model"],
        data=DataConfig(**{**data, "size": side}),
        autoencoder=top.get("autoencoder"),
        text_encoder=top.get("text_encoder"),
        batch_size=training.get("batch_size", BATCH_SIZE),
        label_dropout=training.get("label_dropout", LABEL_DROPOUT),
        settings=settings,
        validation=validation,
        sampling=sampling,
        places=found.places,
    )


def _check_data(found: Found, faults: Faults, side: int | None) -> None:
    data, has_texts = found.values["data"], "text_encoder" in found.places
    if found.is_left_out("data.pictures"):
        faults.add(found.place("data"), "data has no pictures; write digits, emoji, or a folder of pictures")
    elif side is None and found.is_left_out("data.size"):
        faults.add(found.place("data"), "data has no size; write the side of the pictures in pixels, like size: 128")
    caption = data.get("caption")
    if caption is not None and not has_texts:
        faults.add(found.place("data.caption"), "a caption is read by a text_encoder, and there is none; write one")
    elif caption is not None and NAME_OF_CLASS not in caption:
        faults.add(found.place("data.caption"), f"the caption has no {NAME_OF_CLASS}; write it where the name belongs")
    if has_texts and data.get("pictures") == DIGITS and caption is None and found.is_left_out("data.caption"):
        faults.add(found.place("data"), 'digits have no captions; write one, like caption: "the digit {class}"')
    if "autoencoder" in found.places and data.get("pictures") == DIGITS:
        faults.add(found.place("autoencoder"), "digits are grey, and autoencoders take colours; leave it out")


def _settings_of(found: Found, faults: Faults) -> TrainingSettings | None:
    """The settings of the loop: each value is tried by itself, so that all faults are told."""
    given = {name: value for name, value in found.values["training"].items() if name not in OF_BATCHES}
    if found.is_left_out("training.steps"):
        faults.add(found.place("training"), "training has no steps; write how many, like steps: 10000")
    for name, value in given.items():
        try:
            TrainingSettings(**{"steps": 1, name: value})
        except InputError as error:
            faults.add(found.place(f"training.{name}"), str(error))
            found.faulty.add(f"training.{name}")
    if "steps" not in given or any(f"training.{name}" in found.faulty for name in given):
        return None
    every = found.values["validation"].get("every", ValidationConfig.every)
    own = {
        "ema": EMA,
        "checkpoint_every": every,
        "validate_every": every,
        "seed": found.values[""].get("seed", 0),
        "weights": found.values["losses"],
    }
    return TrainingSettings(**{**own, **given})


def _sampling_of(found: Found, faults: Faults) -> SamplingConfig:
    """Samples are drawn when it is measured."""
    measured = found.values["validation"].get("every", ValidationConfig.every)
    sampling = SamplingConfig(**{"every": measured, **found.values["sampling"]})
    if sampling.every % measured:
        said = f"samples every {sampling.every} steps are not drawn when it is measured, every {measured} steps"
        faults.add(found.place("sampling.every"), f"{said}; write a multiple of these, or 0 for none")
    return sampling


def _check_model(found: Found, faults: Faults, side: int | None) -> None:
    """Faults of the model, each at the first value that it names."""
    if any(name.partition(".")[0] == "model" for name in found.faulty):
        return
    model = found.values["model"]
    of_pixels = side is not None and "autoencoder" not in found.places
    stand_in = side if of_pixels else model.get("patch_size", MODEL_DEFAULTS["patch_size"])
    for text in faults_of_config(full_config(model, stand_in, is_of_texts="text_encoder" in found.places)):
        faults.add(found.place(_name_in(text, model)), text.replace("pooled_projection_dim", "a text_encoder"))


def _name_in(text: str, model: Mapping[str, Any]) -> str:
    """The dotted name of the value that a fault is about: the first field of the model that it names."""
    named = min((name for name in model if name in text), key=text.find, default=None)
    if named is not None:
        return f"model.{named}"
    return "data.size" if "sample_size" in text else "model"


def full_config(model: Mapping[str, Any], side: int | None, *, is_of_texts: bool) -> dict[str, Any]:
    """All fields of a DiT's config, with stand-ins for what the pictures tell."""
    labels = {"pooled_projection_dim": OTHER_CHANNELS} if is_of_texts else {"num_classes": 1}
    return {**MODEL_DEFAULTS, **model, "sample_size": side, "in_channels": OTHER_CHANNELS, **labels}
