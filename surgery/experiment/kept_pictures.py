"""The pictures of an evaluation where people look for them: a folder a row, with second names of the stored files."""

import os
from collections.abc import Mapping
from pathlib import Path

from surgery.anatomy.identity import hash_file
from surgery.errors import InputError
from surgery.experiment.rows import folder_name
from surgery.files import link_file, write_whole
from surgery.metrics.pictures import PictureSet


def keep_pictures(rows: Mapping[str, PictureSet], folder: Path, store: Path) -> None:
    """Put the pictures of every row into a folder of its name, each a hard link to its file in the store.

    A link is one and the same file under another name, so they take no room; where the file system has no hard links
    they are copies. Pictures of earlier runs give way to these: the store still has them. Nothing else is replaced.

    Raises:
        InputError: something that is not in the store is in the way; nothing has been written then.
    """
    wanted = {
        folder / folder_name(name) / file.name: file for name, pictures in rows.items() for file in pictures.files
    }
    there = [path for path, file in wanted.items() if os.path.lexists(path) and not _is_same(path, file)]
    stored = {hash_file(path) for path in store.glob("*/*.png")} if there else set()
    for path in there:
        if not path.is_file() or hash_file(path) not in stored:
            raise InputError(f"{path} is no picture of {store}; move it away, or give another --out")
    for path in there:
        path.unlink()
    for path, file in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(path) and not link_file(file, path):
            write_whole(path, file.read_bytes())


def _is_same(path: Path, file: Path) -> bool:
    """Whether a path is a name of this very file."""
    return os.path.samestat(path.lstat(), file.stat())
