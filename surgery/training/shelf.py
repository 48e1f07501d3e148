"""What training reads again and again, kept on disk: one file a chunk of rows, under the hash of what it is made from.

"It is there" means that it is whole: files are written beside and renamed. A damaged one is made anew. Rows are read
from the files as they are needed, so that no more than a batch is in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from surgery.files import explain_failure, key_of_recipe, write_whole

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Shelf:
    """A folder of such files."""

    folder: Path

    def find_or_make(self, recipe: Mapping[str, Any], make: Callable[[], Tensors]) -> Path:
        """The file of what is made so; it is made where it is not there.

        Raises:
            InputError: it can't be written.
        """
        path = self.folder / f"{key_of_recipe(recipe)}.safetensors"
        if is_whole(path):
            return path
        content = save({name: value.detach().cpu().contiguous() for name, value in make().items()})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            raise explain_failure(error, path) from None
        return path


def is_whole(path: Path) -> bool:
    """Whether there is a sound file."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


@dataclass
class Rows:
    """The rows of several files, one after the other; `starts` are the numbers of their first rows, and of the end."""

    files: Sequence[Path]
    starts: Sequence[int]
    opened: dict[int, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """These rows (B, ...), by the names of their tensors."""
        rows = [self._read_one(number) for number in numbers]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _read_one(self, number: int) -> dict[str, torch.Tensor]:
        file = max(index for index, start in enumerate(self.starts[:-1]) if start <= number)
        if file not in self.opened:
            self.opened[file] = safe_open(self.files[file], framework="pt")  # mapped, as long as we run
        own = number - self.starts[file]
        found = self.opened[file]
        return {name: found.get_slice(name)[own : own + 1] for name in found.keys()}  # noqa: SIM118  (no mapping)


def rows_of(files: Sequence[Path], sizes: Sequence[int]) -> Rows:
    """The rows of files that hold so many each."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return Rows(tuple(files), tuple(starts))
