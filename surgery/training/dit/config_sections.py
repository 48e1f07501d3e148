"""The sections of a training config, and how each of their values is read: the grammar, as data."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, get_args

from surgery.dit.model import DiT
from surgery.spec.document import Items, Scalar, Value
from surgery.spec.fields import describe, read_choice, read_integer, read_number, read_text
from surgery.spec.places import Faults
from surgery.training.dit.config import SPECTRAL
from surgery.training.settings import Precision, Schedule

MAX_SIDE = 4096  # of pictures, in pixels
OF_DATA = (
    "sample_size",
    "in_channels",
    "num_classes",
    "pooled_projection_dim",
)  # of DiT's config: the pictures say them

Reader = Callable[[Value, str, Faults], Any]  # a value, what messages call it -> what it is, None where it is faulty


def _read_flag(value: Value, what: str, faults: Faults) -> bool | None:
    if isinstance(value, Scalar) and isinstance(value.value, bool):
        return value.value
    faults.add(value.place, f"{what} is {describe(value)}; write true or false")
    return None


def _read_at_least(value: Value, what: str, faults: Faults, *, below: float | None) -> float | None:
    """A number of 0 or more, and less than `below`."""
    number = read_number(value, what, faults)
    if number is None or (number >= 0 and (below is None or number < below)):
        return number
    wanted = "of 0 or more" if below is None else f"from 0 to below {below:g}"
    faults.add(value.place, f"{what} is {describe(value)}; write a number {wanted}")
    return None


def _read_texts(value: Value, what: str, faults: Faults) -> tuple[str, ...] | None:
    items = value.items if isinstance(value, Items) else (value,)
    return tuple(text for item in items if (text := read_text(item, what, faults)) is not None) or None


def _one_of(choices: Iterable[str]) -> Reader:
    return lambda value, what, faults: read_choice(value, what, choices, faults)


COUNT: Reader = partial(read_integer, minimum=1)
WHOLE: Reader = partial(read_integer, minimum=0)
SHARE: Reader = partial(_read_at_least, below=1)
WEIGHT: Reader = partial(_read_at_least, below=None)
OF_TYPE: Mapping[type, Reader] = {int: COUNT, float: read_number, bool: _read_flag, str: read_text}

TOP: Mapping[str, Reader] = {
    "title": read_text,
    "autoencoder": read_text,
    "text_encoder": read_text,
    "seed": WHOLE,
}
_FIELDS = {name: field for name, field in inspect.signature(DiT.__init__).parameters.items() if name != "self"}
MODEL_DEFAULTS: Mapping[str, Any] = {name: field.default for name, field in _FIELDS.items()}
SECTIONS: Mapping[str, Mapping[str, Reader]] = {
    "model": {name: OF_TYPE[field.annotation] for name, field in _FIELDS.items() if name not in OF_DATA},
    "data": {
        "pictures": read_text,
        "size": partial(read_integer, minimum=1, maximum=MAX_SIDE),
        "crop": _read_flag,
        "skip_unreadable": _read_flag,
        "caption": read_text,
    },
    "training": {
        "steps": COUNT,
        "batch_size": COUNT,
        "accumulate": COUNT,
        "learning_rate": read_number,
        "weight_decay": read_number,
        "warmup": WHOLE,
        "schedule": _one_of(get_args(Schedule)),
        "clip": read_number,
        "ema": read_number,
        "label_dropout": SHARE,
        "precision": _one_of(get_args(Precision)),
        "gradient_checkpointing": _read_flag,
        "checkpoint_every": COUNT,
        "patience": COUNT,
        "trackers": _read_texts,
    },
    "losses": {SPECTRAL: WEIGHT},
    "validation": {"share": SHARE, "bins": COUNT, "every": COUNT, "pictures": COUNT},
    "sampling": {"steps": COUNT, "guidance_scale": read_number, "columns": COUNT, "every": WHOLE},
}
