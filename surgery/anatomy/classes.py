"""The name of a class, as files write it -> the class: of diffusers, or of `surgery.dit`. No other code is looked at."""

import importlib
from collections.abc import Mapping
from typing import Any

DIFFUSERS = "diffusers"
OWN_CLASSES: Mapping[str, str] = {name: "surgery.dit" for name in ("DiT", "ClassDiTPipeline", "TextDiTPipeline")}


def home_of_class(name: str) -> str:
    """The package that a class of this name is imported from; nothing is loaded."""
    return OWN_CLASSES.get(name, DIFFUSERS)


def find_class(name: str) -> Any:
    """The class of this name; None where there is none. Loads what it is in."""
    return getattr(importlib.import_module(home_of_class(name)), name, None)


def find_pipeline_class(name: str | None) -> Any:
    """What loads a pipeline of this class: the class, where it is one of our own, else diffusers' own way to find it."""
    return find_class(name if name in OWN_CLASSES else "DiffusionPipeline")
