"""A file of calibrated means: safetensors with one vector (channels,) a component and stream.

Tensor names are `mean/COMPONENT/STREAM`: the component's dotted name in the model, and the name of the argument of its
forward that carries the tokens, as in `mean/transformer_blocks.2.attn/encoder_hidden_states`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import write_whole
from surgery.spec.file_kind import is_spec
from surgery.spec.selector import FIRST

KEY = "surgery_profile"  # of a profile's recipe in the header
PREFIX = "mean/"
Vectors = Mapping[str, Mapping[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class MeansFile:
    """The vectors of a file, float64, by component and stream, and the SHA-256 of the file; where it was read.

    `transformer` is the one of its pipeline in which they were measured.
    """

    path: Path
    digest: str
    vectors: Vectors
    transformer: str = FIRST

    @property
    def widths(self) -> dict[str, int]:
        """The number of values of each `COMPONENT/STREAM`."""
        return {f"{name}/{stream}": len(v) for name, streams in self.vectors.items() for stream, v in streams.items()}


def read_means(path: str | Path) -> MeansFile:
    """Read a file of means.

    Raises:
        InputError: it can't be read, is no safetensors file, or holds no means, or one that is no finite vector.
    """
    if is_spec(path):
        raise InputError(f"{path} is a spec, and no profile, which `surgery profile` writes")
    with told_as(f"the profile {path} can't be read"):
        content = Path(path).read_bytes()
    with told_as(f"the profile {path} is no safetensors file of float32 or float64 values"):
        tensors, transformer = load_file(path), _transformer_of(content)
    vectors: dict[str, dict[str, NDArray[np.float64]]] = {}
    for key, tensor in tensors.items():
        if not key.startswith(PREFIX):
            continue
        component, _, stream = key.removeprefix(PREFIX).rpartition("/")
        if tensor.dtype.kind != "f":  # bfloat16 is read where another library has taught it to numpy
            raise InputError(f"the profile {path} is no safetensors file of float32 or float64 values: {key}")
        if not component or tensor.ndim != 1 or not np.isfinite(tensor).all():
            raise InputError(f"the profile {path}: {key} is no vector of finite values named mean/COMPONENT/STREAM")
        vectors.setdefault(component, {})[stream] = tensor.astype(np.float64)
    if not vectors:
        raise InputError(f"the profile {path} holds no means (tensors named mean/COMPONENT/STREAM)")
    return MeansFile(Path(path), hashlib.sha256(content).hexdigest(), vectors, transformer)


def _transformer_of(content: bytes) -> str:
    """The transformer that the recipe in a file's header names; the first where there is none, or it names none."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    recipe = json.loads(metadata.get(KEY, "{}")).get("recipe", {})
    return str(recipe.get("transformer", FIRST))


def write_means(vectors: Vectors, path: str | Path) -> None:
    """Write a file of means, whole or not at all."""
    flat = {
        f"{PREFIX}{name}/{stream}": np.ascontiguousarray(v) for name, s in vectors.items() for stream, v in s.items()
    }
    write_whole(Path(path), save(flat))
