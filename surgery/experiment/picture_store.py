"""Pictures by what they depend on: drawn once, kept as PNG under a hash of their recipe, found again by a later run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from surgery.files import key_of_recipe, write_whole
from surgery.metrics.pictures import PictureSet, png_of, read_pictures

RECIPE = "recipe.json"
KEY_LENGTH = 32


@dataclass(frozen=True)
class StoredPictures:
    """The folder of one recipe. A picture that is there is whole."""

    folder: Path

    def has(self, numbers: Sequence[int]) -> bool:
        """Whether all pictures of these numbers are there."""
        return all(self._path(number).exists() for number in numbers)

    def keep(self, numbers: Sequence[int], images: Sequence[Image.Image]) -> None:
        """Write pictures under their numbers."""
        for number, image in zip(numbers, images, strict=True):
            write_whole(self._path(number), png_of(image))

    def read(self) -> PictureSet:
        """All that are there."""
        return read_pictures(self.folder, role="scored")

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.png"


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
