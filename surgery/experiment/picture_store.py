"""Pictures by what they depend on: drawn once, kept as PNG under a hash of their recipe, found again by a later run."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from surgery.metrics.pictures import PictureSet, read_pictures

RECIPE = "recipe.json"


@dataclass(frozen=True)
class PictureStore:
    """A folder with a folder for each recipe. A picture that is there is whole: it was written beside and renamed."""

    folder: Path

    def draw(
        self,
        recipe: Mapping[str, Any],
        count: int,
        batch_size: int,
        draw_batch: Callable[[Sequence[int]], Sequence[Image.Image]],
        on_batch: Callable[[int], object],
    ) -> PictureSet:
        """The pictures 0 to `count` of a recipe; `draw_batch` draws those of a batch that are not all there."""
        place = self.folder / key_of(recipe)
        place.mkdir(parents=True, exist_ok=True)
        (place / RECIPE).write_text(json.dumps(recipe, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for start in range(0, count, batch_size):
            numbers = range(start, min(start + batch_size, count))
            paths = [place / f"{number:05d}.png" for number in numbers]
            if not all(path.exists() for path in paths):
                for path, image in zip(paths, draw_batch(numbers), strict=True):
                    beside = path.with_suffix(".png.partial")
                    image.save(beside, format="PNG")
                    beside.replace(path)
            on_batch(len(paths))
        return read_pictures(place, role="scored")


def key_of(recipe: Mapping[str, Any]) -> str:
    """A hash of everything in a recipe, as the name of a folder."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]
