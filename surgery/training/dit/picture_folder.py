"""A folder of pictures -> its files with labels, and all that is wrong with it at once.

Pictures lie in a folder a class, or beside captions (see `experiment.captions`). Each is decoded once to see whether it
can be read; what was seen is kept on a shelf under the hashes of the files.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from surgery.errors import InputError, SurgeryNote
from surgery.experiment.captions import SUFFIXES, TABLES, read_captions
from surgery.files import hash_file
from surgery.metrics.open_picture import open_picture
from surgery.progress import show_progress
from surgery.training.shelf import Shelf

NAMED = 5  # files that a message names
SIZES = "sizes"
UNREADABLE = (0, 0)


@dataclass(frozen=True)
class PictureFile:
    """A file of a picture, the hash of its content, and its class or caption."""

    path: Path
    key: str
    label: str

    def open_square(self) -> Image.Image:
        """Its middle square."""
        image = open_picture(self.path).image
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.crop((left, top, left + side, top + side))


def read_classes(folder: Path, shelf: Shelf, *, crop: bool, skip_unreadable: bool) -> list[PictureFile]:
    """The pictures of a folder that has a folder a class.

    Raises:
        InputError: all that is wrong with it, a line each.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; write digits, emoji, or a folder of pictures")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        is_captioned = any((folder / name).exists() for name in TABLES) or any(folder.glob("*.txt"))
        hint = "with captions it takes a text_encoder" if is_captioned else "put the pictures of each class in one"
        raise InputError(f"{folder} has no folders, one a class; {hint}")
    by_class = {path: list(_pictures_in(path)) for path in classes}
    beside = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    faults = [
        f"the class {path.name} has no picture ({', '.join(SUFFIXES)})" for path, own in by_class.items() if not own
    ]
    if all(not own for own in by_class.values()):
        raise InputError(f"{folder} has no pictures in its folders: {_some(path.name for path in classes)}")
    if beside:
        faults.append(f"{_count(beside)} in no folder of a class: {_some(path.name for path in beside)}")
    files = [PictureFile(path, hash_file(path), own.name) for own, paths in by_class.items() for path in paths]
    return _usable(folder, files, shelf, faults, crop=crop, skip_unreadable=skip_unreadable)


def read_captioned(folder: Path, shelf: Shelf, *, crop: bool, skip_unreadable: bool) -> list[PictureFile]:
    """The pictures of a folder with captions, as often as they have captions; raises as `read_classes`."""
    pairs = read_captions(folder)
    keys = {path: hash_file(path) for path in {pair.file for pair in pairs}}
    files = [PictureFile(pair.file, keys[pair.file], pair.caption) for pair in pairs]
    return _usable(folder, files, shelf, [], crop=crop, skip_unreadable=skip_unreadable)


def _pictures_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            yield path


def _usable(
    folder: Path, files: Sequence[PictureFile], shelf: Shelf, faults: list[str], *, crop: bool, skip_unreadable: bool
) -> list[PictureFile]:
    """The files that can be read; raises InputError with these faults and those of the files."""
    sizes = _sizes_of(folder, files, shelf)
    unreadable = [file for file, size in zip(files, sizes, strict=True) if size == UNREADABLE]
    told = f"{_count(unreadable)} of {len(files)} can't be read"
    reasons = _some(f"{file.path.name} ({_reason(file.path)})" for file in unreadable)
    if unreadable and not skip_unreadable:
        faults.append(f"{told}: {reasons}; mend or remove them, or write skip_unreadable: true")
    good = [file for file, size in zip(files, sizes, strict=True) if size != UNREADABLE]
    faults += _faults_of_shapes([size for size in sizes if size != UNREADABLE], crop=crop)
    gone = sorted({file.label for file in unreadable} - {file.label for file in good}) if skip_unreadable else []
    faults += [f"of the class {label} no picture can be read" for label in gone]
    if faults:
        raise InputError("\n".join(f"{folder}: {fault}" for fault in faults))
    if unreadable:
        warnings.warn(f"{folder}: {told}, and left out: {reasons}", SurgeryNote, stacklevel=2)
    return good


def _faults_of_shapes(sizes: Sequence[tuple[int, int]], *, crop: bool) -> list[str]:
    counted = Counter(sizes)
    if crop or (len(counted) <= 1 and all(width == height for width, height in counted)):
        return []
    listed = _some(f"{width} x {height} ({number})" for (width, height), number in counted.most_common())
    what = f"pictures have {len(counted)} sizes" if len(counted) > 1 else "the pictures are no squares"
    return [f"{what}: {listed}; write crop: true, which takes the middle square of each and scales it to size"]


def _sizes_of(folder: Path, files: Sequence[PictureFile], shelf: Shelf) -> list[tuple[int, int]]:
    """The width and height of each, (0, 0) where it can't be read."""
    by_key = {file.key: file.path for file in files}

    def survey() -> dict[str, torch.Tensor]:
        with show_progress(len(by_key), unit="picture", label=f"reading {folder.name}") as meter:
            found = []
            for path in by_key.values():
                found.append(_size_of(path))
                meter.advance(1)
        return {SIZES: torch.tensor(found)}

    seen = load_file(shelf.find_or_make({"survey": list(by_key)}, survey))[SIZES].tolist()
    sizes = {key: (width, height) for key, (width, height) in zip(by_key, seen, strict=True)}
    return [sizes[file.key] for file in files]


def _size_of(path: Path) -> tuple[int, int]:
    try:
        return open_picture(path).image.size
    except InputError:
        return UNREADABLE


def _reason(path: Path) -> str:
    try:
        open_picture(path)
    except InputError as error:
        return str(error).removeprefix(f"the picture {path} ").removeprefix("can't be read: ")
    return "it can be read now"


def _count(items: Sequence[object]) -> str:
    return f"{len(items)} picture{'s' * (len(items) != 1)}"


def _some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = len(listed) - NAMED
    return ", ".join(listed[:NAMED]) + (f" and {more} more" if more > 0 else "")
