"""Which model it is: what an artefact records of its base model, and whether another model is the same."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from surgery.anatomy.known import VOLATILE_KEYS
from surgery.anatomy.sources import ModelSource
from surgery.files import hash_file

WEIGHTS_PATTERNS = ("*.safetensors", "*.bin", "*.index.json")


@dataclass(frozen=True)
class Identity:
    """A transformer: the name it was found by, its class, the SHA-256 of its config, and either the commit on the hub
    or the SHA-256 of each of its files of weights (none for a folder that holds only a config)."""

    model: str
    class_name: str
    config: str
    revision: str | None
    weights: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain data; `identity_from_json` reads it back."""
        return {**asdict(self), "weights": dict(self.weights)}


def identity_from_json(data: Mapping[str, Any]) -> Identity:
    """The identity that `to_json` wrote; raises KeyError or TypeError where it is none."""
    return Identity(data["model"], data["class_name"], data["config"], data["revision"], dict(data["weights"]))


def identify(source: ModelSource, *, with_weights: bool | None = None) -> Identity:
    """The identity of a model. Weights are hashed where there is no revision, or on request; that reads them all."""
    wanted = source.revision is None if with_weights is None else with_weights
    weights = hash_weights(source) if wanted else {}
    return Identity(source.name, source.class_name, hash_config(source.config), source.revision, weights)


def hash_config(config: Mapping[str, Any]) -> str:
    """SHA-256 of a config, without what says nothing of the model."""
    kept = {name: value for name, value in config.items() if name not in VOLATILE_KEYS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def hash_weights(source: ModelSource) -> dict[str, str]:
    """SHA-256 of each file of weights of a model, two at a time; none for one whose files are not local."""
    if source.file is not None:
        paths = [source.file]
    elif source.folder is not None:
        folder = source.folder
        paths = sorted({path for pattern in WEIGHTS_PATTERNS for path in folder.glob(pattern)})
    else:
        paths = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip((path.name for path in paths), pool.map(hash_file, paths), strict=True))


def find_difference(recorded: Identity, found: ModelSource) -> str | None:
    """Why a model is not the recorded one; None where it is. Its weights are read where they were recorded."""
    if found.class_name != recorded.class_name:
        return f"it is a {found.class_name}, not a {recorded.class_name}"
    if hash_config(found.config) != recorded.config:
        return "its config is another one"
    if recorded.weights:
        weights = hash_weights(found)
        if not weights:
            return "its weights are not here, and were recorded by their hashes"
        changed = [name for name in {**recorded.weights, **weights} if recorded.weights.get(name) != weights.get(name)]
        return f"its weights are others ({', '.join(sorted(changed))})" if changed else None
    if recorded.revision != found.revision:
        return f"it is at revision {found.revision or 'unknown'}, not {recorded.revision or 'unknown'}"
    return None
