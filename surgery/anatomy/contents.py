"""What is in a model: the weights -> one hash of their values, equal wherever they lie, and however cut into files.

What a file says of itself beside its tensors does not count: weights that were saved again unchanged are the same.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from surgery.anatomy.identity import hash_config
from surgery.anatomy.sources import ModelSource, second_source, weights_of_source
from surgery.anatomy.tensor_files import TensorFile, Weights

CHUNK_BYTES = 2**22
MAX_READERS = 4


def hash_tensors(source: ModelSource, *, variant: str | None = None) -> str:
    """SHA-256 over the name, dtype, shape and bytes of every tensor of a source; it reads all of them.

    Files that are still what they were when this process read them are not read again. `variant` is that of diffusers.

    Raises:
        InputError: it has no weights here, they are not sound, or a file was changed while it was read.
    """
    weights = weights_of_source(source, variant=variant)
    stamps = tuple(map(_stamp, weights.files))
    if stamps not in _read_before:
        _read_before[stamps] = _hash_all(weights)
    for file in weights.files:
        file.refuse_change()
    return _read_before[stamps]


def transformers_of(first: ModelSource) -> tuple[ModelSource, ...]:
    """A transformer, and with it the second of its pipeline where that has two."""
    second = second_source(first)
    return (first,) if second is None else (first, second)


def contents_of(sources: Sequence[ModelSource], variant: str | None = None) -> dict[str, Any]:
    """What tells transformers from others, by their names in the pipeline: the class, the hash of the config, and the
    commit on the hub, or the hash of all tensors. Raises as `hash_tensors`.
    """
    found = {}
    for source in sources:
        weights = hash_tensors(source, variant=variant) if source.revision is None else None
        known = {"class_name": source.class_name, "config": hash_config(source.config), "revision": source.revision}
        found[source.part] = {**known, "weights": weights}
    return found


Stamp = tuple[str, int, int, int]
_read_before: dict[tuple[Stamp, ...], str] = {}


def _stamp(file: TensorFile) -> Stamp:
    """What changes with a file: its place, its number on the disk, its size and its time."""
    return os.path.realpath(file.path), file.path.stat().st_ino, file.size_bytes, file.mtime_ns


def _hash_all(weights: Weights) -> str:
    entries = [(file.path, tensor) for file in weights.files for tensor in file.tensors.values()]
    with ThreadPoolExecutor(max_workers=MAX_READERS) as pool:
        sums = pool.map(lambda entry: _hash_bytes(entry[0], entry[1].start, entry[1].stop), entries)
        lines = [
            [tensor.name, tensor.dtype, tensor.shape, found] for (_, tensor), found in zip(entries, sums, strict=True)
        ]
    return hashlib.sha256(json.dumps(sorted(lines)).encode()).hexdigest()


def _hash_bytes(path: Path, start: int, stop: int) -> str:
    """SHA-256 of the bytes `start` to `stop` of a file."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        left = stop - start
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            found.update(chunk)
            left -= len(chunk)
    return found.hexdigest()
