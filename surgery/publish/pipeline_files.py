"""The rest of a pipeline, taken along: large files as hard links where that works, everything else as copies."""

import math
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from surgery.anatomy.needed_files import CARD, TRANSFORMER, is_licence, needed_files
from surgery.anatomy.sources import PIPELINE_INDEX, ModelSource, read_json
from surgery.anatomy.tensor_files import read_header
from surgery.checkpoint.copy_bytes import copy_range
from surgery.errors import InputError
from surgery.files import link_file

LINKED_BYTES = 2**20  # smaller files are copied: someone may edit them, and the original must not change with them


@dataclass(frozen=True)
class PipelineFile:
    """A file of a model beside its transformer: where it is, and its name relative to the model's folder."""

    path: Path
    name: str
    size_bytes: int


def list_pipeline_files(source: ModelSource, *, variant: str | None = None) -> list[PipelineFile]:
    """The files that come along with a transformer: its licence; of a pipeline, too, its index and other components.

    Raises:
        InputError: the index names a folder elsewhere, a folder is a loop of symlinks, or a file can't be read.
    """
    root = base_folder(source)
    if root is None:
        return []
    try:
        names = sorted(path.name for path in root.iterdir() if is_licence(path.name))
        if source.pipeline is not None:
            names += _names_in_pipeline(root, variant)
        return [_pipeline_file(root, name) for name in names]
    except OSError as error:
        raise InputError(f"{error.filename} can't be read: {error.strerror}") from None


def base_folder(source: ModelSource) -> Path | None:
    """Where the card and the licence of the original lie: the root of its pipeline, also where that stays behind."""
    if source.pipeline is not None:
        return Path(source.pipeline)
    if source.file is not None:
        return source.file.parent
    above = None if source.folder is None else source.folder.resolve().parent
    if source.folder is not None and source.folder.name == TRANSFORMER and above is not None:
        return above if (above / PIPELINE_INDEX).exists() else source.folder
    return source.folder


def count_values(files: Iterable[PipelineFile]) -> int | None:
    """The number of values in the safetensors files; None where weights are of another format, too."""
    count = 0
    for file in files:
        if file.name.endswith(".bin"):
            return None
        if file.name.endswith(".safetensors"):
            count += sum(math.prod(tensor.shape) for tensor in read_header(file.path).tensors.values())
    return count


def _names_in_pipeline(root: Path, variant: str | None) -> list[str]:
    index = read_json(root / PIPELINE_INDEX)
    rest = {name: value for name, value in index.items() if name != TRANSFORMER}
    names = [path.name for path in sorted(root.iterdir()) if not path.is_dir()]
    for part in rest:
        if part != Path(part).name or part in ("", ".", ".."):
            raise InputError(f"{root / PIPELINE_INDEX} names the component {part!r}, which is no folder beside it")
        if (root / part).is_dir():
            names += [path.relative_to(root).as_posix() for path in _files_below(root / part, frozenset())]
    needed = needed_files(names, rest, transformer_only=False, variant=variant)
    return [name for name in needed if name != CARD and not is_licence(name)]


def _files_below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        raise InputError(f"{folder} is a loop of symlinks; leave it out, or give --transformer-only")
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files_below(path, above | {real})
        elif not path.name.startswith("."):
            yield path


def _pipeline_file(root: Path, name: str) -> PipelineFile:
    state = (root / name).stat()
    if not stat.S_ISREG(state.st_mode):
        raise InputError(f"{root / name} is no regular file; leave it out, or give --transformer-only")
    return PipelineFile(root / name, name, state.st_size)


def can_link(file: PipelineFile, folder: Path) -> bool:
    """Whether a file is one that is linked, not copied, into a folder: it is large, and on the same disk."""
    return file.size_bytes >= LINKED_BYTES and file.path.stat().st_dev == folder.stat().st_dev


def take_along(
    file: PipelineFile, target: Path, *, copies: bool = False, advance: Callable[[int], None] | None = None
) -> bool:
    """Put a file where it belongs in a new model's folder; whether it was linked. `copies` forbids links.

    `advance` is told of the bytes as they are written.

    Raises:
        InputError: the file became shorter since it was listed.
    """
    place = target / file.name
    place.parent.mkdir(parents=True, exist_ok=True)
    if not copies and file.size_bytes >= LINKED_BYTES and link_file(file.path, place):
        if advance is not None:
            advance(file.size_bytes)
        return True
    try:
        with file.path.open("rb") as source, place.open("xb", buffering=0) as written:  # x: never through a link
            copy_range(source.fileno(), written.fileno(), 0, file.size_bytes, advance or _ignore)
    except EOFError:
        raise InputError(f"{file.path} was changed meanwhile; run it again when it stays as it is") from None
    shutil.copymode(file.path, place)
    return False


def _ignore(size_bytes: int) -> None:
    """Nobody is told."""
