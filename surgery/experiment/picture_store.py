"""Pictures by what they depend on: drawn once, kept as PNG under a hash of their recipe, found again by a later run.

Beside them lies an index with the SHA-256 of each. What is not as the index says is not there: it is drawn again.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import hash_file, is_file, key_of_recipe, write_whole
from surgery.metrics.pictures import PictureSet, pictures_of_files, png_of

RECIPE, INDEX = "recipe.json", "pictures.json"
KEY_LENGTH = 32


@dataclass(frozen=True)
class StoredPictures:
    """The folder of one recipe."""

    folder: Path

    def has(self, numbers: Sequence[int]) -> bool:
        """Whether all pictures of these numbers are there, as they were written."""
        return all(name_of(number) in self._known for number in numbers)

    def keep(self, numbers: Sequence[int], images: Sequence[Image.Image]) -> None:
        """Write pictures under their numbers, then the index."""
        for number, image in zip(numbers, images, strict=True):
            path = self.folder / name_of(number)
            write_whole(path, png_of(image))
            self._known[path.name] = hash_file(path)
        write_whole(self.folder / INDEX, json.dumps(self._known, indent=0, sort_keys=True) + "\n")

    def read(self, num: int) -> PictureSet:
        """The first so many, which are there; what else lies in the folder is not looked at."""
        return pictures_of_files([self.folder / name_of(number) for number in range(num)], self.folder, role="scored")

    def remove(self) -> None:
        """Remove what was written here, and the folder if nothing else is in it."""
        for name in (*self._known, INDEX, RECIPE):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @cached_property
    def _known(self) -> dict[str, str]:
        """The index, but for pictures that are gone or are no longer what was written."""
        with contextlib.suppress(InputError), told_as("it is drawn again"):
            found = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            return {name: digest for name, digest in found.items() if _is_as_written(self.folder / name, digest)}
        return {}


@dataclass(frozen=True)
class PictureStore:
    """A folder with a folder for each recipe."""

    folder: Path

    def open(self, recipe: Mapping[str, Any]) -> StoredPictures:
        """What is there of a recipe, and what will be."""
        place = self.folder / key_of_recipe(recipe)[:KEY_LENGTH]
        place.mkdir(parents=True, exist_ok=True)
        write_whole(place / RECIPE, json.dumps(recipe, indent=2, ensure_ascii=False) + "\n")
        return StoredPictures(place)


def name_of(number: int) -> str:
    """The file of a picture."""
    return f"{number:05d}.png"


def _is_as_written(path: Path, digest: str) -> bool:
    if path.name != Path(path.name).name or not is_file(path) or path.is_symlink():
        return False
    return hash_file(path) == digest
