"""What was measured, by what it depends on: found again by a later run, or by the one that goes on after a kill.

A shelf is a file under the hash of a recipe: numbers of some plans (by their hashes) on one batch of prompts. It is
written beside and renamed after each measurement. One that is not as it was written counts as empty.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import key_of_recipe, write_whole
from surgery.finite import from_finite, to_finite

Numbers = Sequence[float]


@dataclass
class Shelf:
    """The numbers of one recipe, by plan."""

    path: Path
    recipe: Mapping[str, Any]
    numbers: dict[str, Numbers] = field(default_factory=dict)

    def add(self, found: Mapping[str, Numbers]) -> None:
        """Add numbers, and write the shelf."""
        self.numbers.update({name: [float(number) for number in numbers] for name, numbers in found.items()})
        content = {"recipe": self.recipe, "numbers": self.numbers, "digest": key_of_recipe(self.numbers)}
        write_whole(self.path, json.dumps(to_finite(content), sort_keys=True, allow_nan=False) + "\n")


@dataclass(frozen=True)
class Store:
    """The folder of all shelves."""

    folder: Path

    def shelf(self, recipe: Mapping[str, Any]) -> Shelf:
        """The shelf of a recipe, with what is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{key_of_recipe(recipe)}.json"
        return Shelf(path, recipe, _read(path))


def _read(path: Path) -> dict[str, Numbers]:
    with contextlib.suppress(InputError), told_as("it is measured again"):
        content = from_finite(json.loads(path.read_text(encoding="utf-8")))
        if key_of_recipe(content["numbers"]) == content["digest"]:
            return dict(content["numbers"])
    return {}
