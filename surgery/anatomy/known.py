"""Anatomies that were read once, kept on disk: a spec of a known model is checked without torch and diffusers.

A file is named by a hash of all that an anatomy depends on: the transformer's config and class, the dtype of its
weights, and the versions of diffusers and of this package. The one of the bundled pipeline comes with the package.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.as_json import anatomy_from_json, anatomy_to_json
from surgery.bundled import demo_anatomy
from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import expand_home, write_whole
from surgery.version import __version__

FORMAT = 2  # of the files; raised when what is read off a model changes
CACHE_VARIABLE = "SURGERY_CACHE"
VOLATILE_KEYS = ("_diffusers_version", "_name_or_path")  # of a config: they say nothing of the model


def cache_folder() -> Path:
    """`$SURGERY_CACHE`, or `layer-surgery` in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return expand_home(chosen)
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "layer-surgery"


def key_of_config(config: Mapping[str, Any], weights_dtype: str | None) -> str:
    """The name under which the anatomy of a model with this config is kept."""
    facts = {
        "format": FORMAT,
        "surgery": __version__,
        "diffusers": diffusers_version(),
        "weights": weights_dtype,
        "config": {name: value for name, value in config.items() if name not in VOLATILE_KEYS},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def diffusers_version() -> str:
    """The version of diffusers that is installed, from the name of its metadata: nothing of it is imported."""
    location = importlib.util.find_spec("diffusers")
    if location is not None and location.origin is not None:
        beside = Path(location.origin).parents[1]
        for folder in beside.glob("diffusers-*.dist-info"):
            return folder.name.removeprefix("diffusers-").removesuffix(".dist-info")
    from importlib.metadata import version

    return version("diffusers")


def recall_demo() -> Anatomy:
    """The anatomy of the bundled pipeline, as it comes with the package."""
    return anatomy_from_json(json.loads(demo_anatomy().read_bytes()))


def recall_anatomy(key: str) -> Anatomy | None:
    """The anatomy that was kept under a key; None where there is none, or its file is damaged, or could be another's.

    In a cache that others can write to, what they have put there is not believed.
    """
    with contextlib.suppress(InputError), told_as("it is read anew"):
        path = _file(key)
        return anatomy_from_json(json.loads(path.read_bytes())) if _is_own(path) else None
    return None


def _is_own(path: Path) -> bool:
    """Whether a file is this user's, and nobody else may write to it."""
    state = path.stat()
    return state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def keep_anatomy(key: str, anatomy: Anatomy) -> None:
    """Keep an anatomy. A folder that can't be written to is no error: nothing is kept."""
    path = _file(key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(anatomy_to_json(anatomy)))
        path.chmod(0o600)  # what others may write to is not believed, whatever the umask


def _file(key: str) -> Path:
    assert re.fullmatch("[0-9a-f]{64}", key), "a key is a hash"
    return cache_folder() / "anatomies" / f"{key}.json"
