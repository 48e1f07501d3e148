"""The weights of a model -> one hash of their values: equal wherever they lie, and however they are cut into files.

What a file says of itself beside its tensors does not count: weights that were saved again unchanged are the same.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from surgery.anatomy.sources import ModelSource, weights_of_source
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
            [tensor.name, tensor.dtype, tensor.shape, found]
            for (_, tensor), found in zip(entries, sums, strict=True)
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
