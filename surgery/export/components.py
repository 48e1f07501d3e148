"""The rest of a pipeline, taken along: large files as hard links where that works, everything else as copies."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from surgery.anatomy.sources import PIPELINE_INDEX, read_json
from surgery.checkpoint.copy_bytes import copy_range
from surgery.errors import InputError

LINKED_BYTES = 2**20  # smaller files are copied: someone may edit them, and the original must not change with them
NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES}
TAKEN_ALONG = ("LICENSE*", "LICENCE*", "NOTICE*")


@dataclass(frozen=True)
class ComponentFile:
    """A file of a pipeline beside its transformer: where it is, and its name relative to the pipeline's folder."""

    path: Path
    name: str
    size_bytes: int


def list_components(pipeline: Path, transformer: str) -> list[ComponentFile]:
    """The files of a pipeline that come along: its index, its other components' folders, its licence.

    Raises:
        InputError: a folder is a loop of symlinks, or a file can't be read.
    """
    index = read_json(pipeline / PIPELINE_INDEX)
    folders = [
        name for name in index if not name.startswith("_") and name != transformer and (pipeline / name).is_dir()
    ]
    paths = [pipeline / PIPELINE_INDEX, *(path for pattern in TAKEN_ALONG for path in sorted(pipeline.glob(pattern)))]
    for folder in folders:
        paths += _files_below(pipeline / folder, frozenset())
    try:
        return [ComponentFile(path, str(path.relative_to(pipeline)), path.stat().st_size) for path in paths]
    except OSError as error:
        raise InputError(f"{error.filename} can't be read: {error.strerror}") from None


def _files_below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        raise InputError(f"{folder} is a loop of symlinks; leave it out, or give --transformer-only")
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files_below(path, above | {real})
        else:
            yield path


def take_along(
    file: ComponentFile, target: Path, *, copies: bool = False, advance: Callable[[int], None] = lambda size: None
) -> bool:
    """Put a file where it belongs in a new pipeline's folder; whether it was linked. `copies` forbids links."""
    place = target / file.name
    place.parent.mkdir(parents=True, exist_ok=True)
    if not copies and file.size_bytes >= LINKED_BYTES:
        try:
            os.link(os.path.realpath(file.path), place)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        else:
            advance(file.size_bytes)
            return True
    with file.path.open("rb") as source, place.open("wb", buffering=0) as written:
        copy_range(source.fileno(), written.fileno(), 0, file.size_bytes, advance)
    shutil.copymode(file.path, place)
    return False
