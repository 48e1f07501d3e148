"""A byte plan -> files in a folder: each shard in order, the index last, all on the disk before it returns.

The folder is one that is not yet in its place (see outputs.whole_folder): what is left of a write that failed is gone
with it.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from surgery.anatomy.tensor_files import Weights
from surgery.checkpoint.byte_plan import BytePlan, Computed, Copied, Shard
from surgery.checkpoint.copy_bytes import copy_range, ignore_progress
from surgery.checkpoint.values import Means, compute_bytes, refuse_unknown_dtypes
from surgery.errors import InputError
from surgery.files import sync_file

SPARE_BYTES = 2**20  # for headers, configs and texts


def write_weights(
    folder: Path,
    plan: BytePlan,
    weights: Weights,
    *,
    metadata: Mapping[str, str],
    means: Means | None = None,
    advance: Callable[[int], None] = ignore_progress,
) -> None:
    """Write the files of a byte plan into a folder; `advance` is told of the bytes as they are written.

    Raises:
        InputError: a file of the original was changed meanwhile.
        OSError: the disk is full, or a file can't be read.
        RefusedError: values of a dtype that is not known must be changed.
    """
    refuse_unknown_dtypes([piece for shard in plan.shards for piece in shard.pieces() if isinstance(piece, Computed)])
    try:
        with ExitStack() as opened:
            sources = {file.path: opened.enter_context(file.path.open("rb")) for file in weights.files}
            for shard in plan.shards:
                _write_shard(folder / shard.name, shard, sources, metadata, means or {}, advance)
            for file in weights.files:
                file.refuse_change()
        for shard in plan.shards:
            sync_file(folder / shard.name)
        if plan.index is not None:
            (folder / plan.index).write_text(plan.index_text(), encoding="utf-8")
    except EOFError:
        for file in weights.files:
            file.refuse_change()
        raise InputError(f"a file of {weights.files[0].path.parent} ends before its header says") from None


def refuse_full_disk(folder: Path, size_bytes: int) -> None:
    """Raise InputError where the disk of a folder has not the room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes + SPARE_BYTES:
        raise InputError(
            f"the disk of {folder} has {_megabytes(free)} left, and {_megabytes(size_bytes + SPARE_BYTES)} are needed; "
            "make room, or write to another disk"
        )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def _write_shard(
    path: Path,
    shard: Shard,
    sources: Mapping[Path, BinaryIO],
    metadata: Mapping[str, str],
    means: Means,
    advance: Callable[[int], None],
) -> None:
    with path.open("wb", buffering=0) as target:
        _write_all(target.fileno(), shard.header(metadata))
        for piece in shard.pieces():
            source = sources[piece.file.path]
            match piece:
                case Copied():
                    copy_range(source.fileno(), target.fileno(), piece.start, piece.size_bytes, advance)
                case Computed():
                    for content in compute_bytes(piece, source, means):
                        _write_all(target.fileno(), content)
                        advance(len(content))


def _write_all(target: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(target, view) :]
