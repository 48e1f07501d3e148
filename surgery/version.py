"""The versions of the package (hatch reads it from here) and of diffusers. Imports neither."""

import importlib.util
from pathlib import Path

__version__ = "0.1.0"


def diffusers_version() -> str:
    """The version of diffusers that is installed, from the name of its metadata: nothing of it is imported."""
    location = importlib.util.find_spec("diffusers")
    if location is not None and location.origin is not None:
        beside = Path(location.origin).parents[1]
        for folder in beside.glob("diffusers-*.dist-info"):
            return folder.name.removeprefix("diffusers-").removesuffix(".dist-info")
    from importlib.metadata import version

    return version("diffusers")
