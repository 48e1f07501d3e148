"""The pictures of an evaluation where people look for them: a folder a row, with second names of the stored files."""

from collections.abc import Mapping
from pathlib import Path

from surgery.experiment.folder_names import folder_names
from surgery.files import link_file
from surgery.metrics.pictures import PictureSet


def keep_pictures(rows: Mapping[str, PictureSet], folder: Path) -> None:
    """Put the pictures of every row into a new folder of its name, each a hard link to its file in the store.

    A link is one and the same file under another name, so they take no room; where the file system has no hard links
    they are copies.
    """
    for name, own in folder_names(list(rows)).items():
        (folder / own).mkdir(parents=True)
        for file in rows[name].files:
            if not link_file(file, folder / own / file.name):
                (folder / own / file.name).write_bytes(file.read_bytes())
