"""What a pruned checkpoint holds -> files as runs of bytes: what is copied from where, what computed, in which shard.

Tensors are ordered by the size of their values, largest first (so that every one is aligned, as safetensors does it),
then as they lie in the original, so that what lies together there is copied in one go.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from surgery.anatomy.tensor_files import BITS, WEIGHTS_NAME, StoredTensor, TensorFile, Weights, num_rows
from surgery.checkpoint.new_checkpoint import NewCheckpoint, NewTensor, Segment
from surgery.errors import InputError

DEFAULT_SHARD_SIZE = "10GB"
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Copied:
    """Bytes `start` to `start + size_bytes` of a file of the original."""

    file: TensorFile
    start: int
    size_bytes: int


@dataclass(frozen=True)
class Computed:
    """Rows whose values change: what is done to them, and the tensor that they come from."""

    file: TensorFile
    tensor: StoredTensor
    segment: Segment
    size_bytes: int


Piece = Copied | Computed


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of a shard, by its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        """The number of its bytes."""
        return sum(piece.size_bytes for piece in self.pieces)


@dataclass(frozen=True)
class Shard:
    """A file to be written."""

    name: str
    tensors: tuple[PlannedTensor, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes of its tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    def header(self, metadata: Mapping[str, str]) -> bytes:
        """The first bytes of the file, up to those of the tensors; a multiple of 8."""
        entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
        position = 0
        for tensor in self.tensors:
            stop = position + tensor.size_bytes
            entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [position, stop]}
            position = stop
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def pieces(self) -> list[Piece]:
        """What follows the header; neighbours in one file are one piece."""
        joined: list[Piece] = []
        for piece in (piece for tensor in self.tensors for piece in tensor.pieces):
            last = joined[-1] if joined else None
            if isinstance(piece, Copied) and isinstance(last, Copied) and _follows(piece, last):
                joined[-1] = replace(last, size_bytes=last.size_bytes + piece.size_bytes)
            else:
                joined.append(piece)
        return joined


@dataclass(frozen=True)
class BytePlan:
    """All files of weights to be written. `index` names the file that lists the shards, None for a single file."""

    shards: tuple[Shard, ...]
    index: str | None

    @property
    def size_bytes(self) -> int:
        """The bytes of all tensors."""
        return sum(shard.size_bytes for shard in self.shards)

    @property
    def num_values(self) -> int:
        """The number of values of all tensors."""
        return sum(math.prod(tensor.shape) for shard in self.shards for tensor in shard.tensors)

    @property
    def computed_bytes(self) -> int:
        """The bytes that are not copied."""
        pieces = (piece for shard in self.shards for tensor in shard.tensors for piece in tensor.pieces)
        return sum(piece.size_bytes for piece in pieces if isinstance(piece, Computed))

    def index_text(self) -> str:
        """The content of the index, in diffusers' form."""
        weight_map = {tensor.name: shard.name for shard in self.shards for tensor in shard.tensors}
        total = {"total_size": self.size_bytes}
        return json.dumps({"metadata": total, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"


def plan_bytes(
    new: NewCheckpoint,
    weights: Weights,
    *,
    max_shard_size: str | int = DEFAULT_SHARD_SIZE,
    single: str | None = None,
    variant: str | None = None,
) -> BytePlan:
    """The files of a pruned checkpoint. `single` names the one file of it; without, they are named as diffusers does.

    Raises:
        InputError: the size is none, or a value is to be changed whose dtype can't be.
    """
    limit = parse_size(max_shard_size)
    stored = weights.tensors
    rank = {file.path: position for position, file in enumerate(weights.files)}
    tensors = [_plan_tensor(tensor, stored) for tensor in new.tensors]
    tensors.sort(key=lambda tensor: _place(tensor, rank))
    if single is not None:
        return BytePlan((Shard(single, tuple(tensors)),), None)
    groups = _split(tensors, limit)
    infix = f".{variant}" if variant else ""
    if len(groups) == 1:
        return BytePlan((Shard(f"{WEIGHTS_NAME}{infix}.safetensors", tuple(groups[0])),), None)
    names = [f"{WEIGHTS_NAME}{infix}-{n:05d}-of-{len(groups):05d}.safetensors" for n in range(1, len(groups) + 1)]
    shards = tuple(Shard(name, tuple(group)) for name, group in zip(names, groups, strict=True))
    return BytePlan(shards, f"{WEIGHTS_NAME}.safetensors.index{infix}.json")


def parse_size(text: str | int) -> int:
    """A number of bytes from `10GB` (decimal, as diffusers counts), `512MiB` or a number; raises InputError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if found is None or found[2].upper() not in UNITS or not float(found[1]):
        raise InputError(f"{text!r} is no size of a shard; write one like 10GB, 500MB or 2GiB")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _plan_tensor(tensor: NewTensor, stored: Mapping[str, tuple[TensorFile, StoredTensor]]) -> PlannedTensor:
    _, first = stored[tensor.segments[0].tensor]
    pieces: list[Piece] = []
    for segment in tensor.segments:
        file, source = stored[segment.tensor]
        if source.dtype != first.dtype or source.shape[1:] != first.shape[1:]:
            raise InputError(f"{tensor.name} would join {first.name} and {source.name}, which are of different kinds")
        start, stop = _byte_range(file, source, segment)
        if segment.change == "keep":
            pieces.append(Copied(file, source.start + start, stop - start))
        else:
            pieces.append(Computed(file, source, segment, stop - start))
    shape = (tensor.num_rows, *first.shape[1:]) if first.shape else ()
    return PlannedTensor(tensor.name, first.dtype, shape, tuple(pieces))


def _byte_range(file: TensorFile, source: StoredTensor, segment: Segment) -> tuple[int, int]:
    """Where the rows of a segment begin and end, from the first byte of the tensor that they are of."""
    rows = num_rows(source.shape)
    if segment.num_rows == rows:  # all its bytes, whatever a row of its dtype is
        return 0, source.size_bytes
    row_bytes, rest = divmod(source.size_bytes, rows)
    if rest:
        raise InputError(f"{file.path}: {source.name!r} is of dtype {source.dtype!r}, whose rows are not whole bytes")
    return segment.start * row_bytes, segment.stop * row_bytes


def _place(tensor: PlannedTensor, rank: Mapping[Path, int]) -> tuple[int, int, int]:
    piece = tensor.pieces[0]
    start = piece.start if isinstance(piece, Copied) else piece.tensor.start
    return -BITS.get(tensor.dtype, 64), rank[piece.file.path], start


def _split(tensors: Sequence[PlannedTensor], limit: int) -> list[list[PlannedTensor]]:
    """Shards of at most `limit` bytes each, in order; a larger tensor has one of its own."""
    groups: list[list[PlannedTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and size + tensor.size_bytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.size_bytes
    return groups


def _follows(piece: Copied, last: Copied) -> bool:
    return piece.file is last.file and piece.start == last.start + last.size_bytes
