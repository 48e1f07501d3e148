"""Files of weights that measuring needs: found where they belong, or asked for. Nothing is ever downloaded."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import expand_home, hash_file


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    `sha256` is the file's hash, or as much of its beginning as its publisher states. `serves` names what is measured
    with it, `without` what can be measured when it is missing.
    """

    name: str
    sha256: str
    url: str
    serves: str
    without: str


def checkpoint_folder() -> Path:
    """The folder in which torch.hub keeps weights: `$TORCH_HOME/hub/checkpoints`, as torch itself finds it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    return expand_home(os.environ.get("TORCH_HOME", cache)) / "hub" / "checkpoints"


def find_weights(wanted: WeightFile, given: Path | None = None) -> Path:
    """The file, given or in torch.hub's folder, once its hash is the one published.

    Raises:
        InputError: it is missing, or another file; says which one, its hash, where it belongs, and what can be
            measured without it.
    """
    path = checkpoint_folder() / wanted.name if given is None else given
    if not path.is_file():
        raise InputError(
            f"{wanted.serves} needs the file {wanted.name} (SHA-256 {_shown(wanted.sha256)}), and there is no {path}; "
            f"fetch {wanted.url} and put it there; without it there is {wanted.without}"
        )
    with told_as(f"{path} can't be read"):
        found = hash_file(path)
    if not found.startswith(wanted.sha256):
        raise InputError(
            f"{path} is not {wanted.name}: its SHA-256 is {found}, and {_shown(wanted.sha256)} is wanted; "
            f"fetch {wanted.url} again; without it there is {wanted.without}"
        )
    return path


def digest_of_state(state: Mapping[str, Any]) -> str:
    """The SHA-256 of tensors: names, dtypes, shapes and bytes, in the order of the names.

    It is of what is in memory: weights that were left random by a loader have another digest than the file's.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _shown(sha256: str) -> str:
    return sha256 if len(sha256) == 64 else f"{sha256}..."
