"""What a command has written in a folder, by which it knows its own files again: `.surgery.json`, or a manifest.

`.surgery.json` lists by command each file with the SHA-256 of its contents. A compiled folder lists its files in its
manifest `surgery.json` instead, with their digests or sizes.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import hash_file, is_file, write_whole

MARKER, MANIFEST = ".surgery.json", "surgery.json"
STAGED = ".surgery.partial"  # where files of a folder that is there already wait for their places
FORMAT = 1
COMPILE = "compile"

Sums = tuple[str | int, ...]  # what a file may be known by: SHA-256 of its contents, or a size in bytes


@dataclass(frozen=True)
class Written:
    """The files that a command wrote in a folder, by their paths in it.

    `request` is the key of what was asked for, where that matters. Until `is_whole` the files were being put into their
    places: each may be what it was before, or not yet there.
    """

    request: str = ""
    files: Mapping[str, Sums] = field(default_factory=dict)
    is_whole: bool = True

    def owns(self, folder: Path, name: str) -> bool:
        """Whether the file of this name is still what was written."""
        path, sums = folder / name, self.files.get(name, ())
        if not sums or not is_file(path) or path.is_symlink():
            return False
        return path.stat().st_size in sums or hash_file(path) in sums


def read_written(folder: Path, command: str) -> Written | None:
    """What a command has written in a folder; None where it never wrote there, or what says so is damaged."""
    if command == COMPILE:
        return _from_manifest(folder)
    found = _document(folder).get(command)
    with contextlib.suppress(InputError), told_as("nothing is known of it"):
        files = {str(name): tuple(sums) for name, sums in found["files"].items()}  # type: ignore[index]
        return Written(str(found["request"]), files, bool(found["is_whole"]))  # type: ignore[index]
    return None


def write_written(folder: Path, command: str, written: Written) -> None:
    """Note it, beside what other commands have written there."""
    own = {
        "request": written.request,
        "files": {name: list(sums) for name, sums in sorted(written.files.items())},
        "is_whole": written.is_whole,
    }
    document = {**_document(folder), "format": FORMAT, command: own}
    write_whole(folder / MARKER, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def forget_written(folder: Path, command: str) -> None:
    """Take back that a command has written there."""
    left = {name: value for name, value in _document(folder).items() if name not in (command, "format")}
    if left:
        write_whole(folder / MARKER, json.dumps({"format": FORMAT, **left}, indent=1, ensure_ascii=False) + "\n")
    else:
        (folder / MARKER).unlink(missing_ok=True)


def files_in(folder: Path, *, with_partial: bool = False) -> Iterator[str]:
    """The paths of all files in a folder, in order, but for markers and what a killed run has left half written.

    Links to folders are files here.
    """
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if with_partial or not is_partial(name))
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in sorted([*names, *links]):
            path = (Path(root) / name).relative_to(folder).as_posix()
            if path not in (MARKER, MANIFEST) and (with_partial or not is_partial(name)):
                yield path


def is_partial(name: str) -> bool:
    """Whether a file or folder of this name is one that is being written."""
    return name.startswith(".") and name.endswith(".partial")


def _document(folder: Path) -> dict[str, Any]:
    return _read(folder / MARKER)


def _from_manifest(folder: Path) -> Written | None:
    found = _read(folder / MANIFEST)
    files = found.get("files")
    if "plan" not in found or not isinstance(files, dict):
        return None
    return Written("", {str(name): (known,) for name, known in files.items() if isinstance(known, str | int)})


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(InputError), told_as("nothing is known of it"):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
