"""Anatomies that were read once, kept on disk: a spec of a known model is checked without torch and diffusers.

A file is named by a hash of all that an anatomy depends on: the transformer's config and class, the dtype of its
weights, and the versions of diffusers and of this package. The one of the bundled pipeline comes with the package.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.as_json import anatomy_from_json, anatomy_to_json
from surgery.bundled import demo_anatomy
from surgery.calls.kept_calls import is_recorded_since
from surgery.damage import told_as
from surgery.errors import InputError
from surgery.kept import keep, kept_file, recall
from surgery.version import __version__, diffusers_version

FORMAT = 4  # of the files; raised when what is read off a model changes
SHELF = "anatomies"
VOLATILE_KEYS = ("_diffusers_version", "_name_or_path")  # of a config: they say nothing of the model


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


def recall_demo() -> Anatomy:
    """The anatomy of the bundled pipeline, as it comes with the package."""
    return anatomy_from_json(json.loads(demo_anatomy().read_bytes()))


def recall_anatomy(key: str) -> Anatomy | None:
    """The anatomy that was kept under a key; None where there is none, or its file is damaged, or could be another's.

    In a cache that others can write to, what they have put there is not believed. Where a call has been recorded since,
    the anatomy is read anew, with it.
    """
    with contextlib.suppress(InputError), told_as("it is read anew"):
        found = recall(kept_file(SHELF, key))
        if found is None or (
            found["call"] is not None and is_recorded_since(found["call"], found["anatomy"]["known_from"])
        ):
            return None
        return anatomy_from_json(found["anatomy"])
    return None


def keep_anatomy(key: str, anatomy: Anatomy, call_key: str | None) -> None:
    """Keep an anatomy. A folder that can't be written to is no error: nothing is kept.

    `call_key` is the key of a call of its model (see calls.kept_calls).
    """
    keep(kept_file(SHELF, key), {"anatomy": anatomy_to_json(anatomy), "call": call_key})
