"""A pruned copy of the bundled pipeline, and pictures of it that stock diffusers draws."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from surgery.demo import stock_draw
from surgery.errors import SurgeryError
from surgery.outputs import added_files
from surgery.plan.planned import plan_spec_file
from surgery.publish.pruned_model import CompileOptions, PrunedModel, compile_planned


@dataclass(frozen=True)
class StockPictures:
    """A pruned pipeline, the folder of the pictures that diffusers drew with it, and how many are the variant's."""

    pruned: PrunedModel
    pictures: Path
    num_pictures: int
    num_same: int

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "folder": str(self.pruned.folder),
            "pictures": str(self.pictures),
            "num_pictures": self.num_pictures,
            "num_same": self.num_same,
            "weights": self.pruned.manifest["weights"],
        }

    def describe(self) -> str:
        """Two lines: where it is, and what came of it."""
        before, after = self.pruned.manifest["weights"]["parameters"]
        return (
            f"{self.pruned.folder}: the same model pruned, {after / 1e6:.2f} M of {before / 1e6:.2f} M parameters; "
            "diffusers loads it without this package\n"
            f"{self.pictures}: drawn so; {self.num_same} of {self.num_pictures} pictures are those of the variant"
        )


def draw_pruned(spec: Path, out: Path, recipe: Mapping[str, Any]) -> StockPictures:
    """Compile a spec to a checkpoint in `out/pruned`, and draw with it what `recipe` (a gallery's) says.

    The pictures of the variant itself must lie in `out/STEM`, where the gallery puts them.

    Raises:
        SurgeryError: the pipeline can't be pruned, or stock diffusers can't draw with it.
    """
    pruned = compile_planned(plan_spec_file(spec), out / "pruned", CompileOptions(force=True))
    pictures = out / f"{spec.stem}-by-diffusers"
    dtype = "float32" if recipe["dtype"] == "auto" else recipe["dtype"]
    request = {**{key: recipe[key] for key in ("prompts", "seed", "batch_size", "call")}, "dtype": dtype}
    with added_files(pictures, "demo", force=True) as folder:
        command = [sys.executable, str(stock_draw.__file__), str(pruned.folder), str(folder), json.dumps(request)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SurgeryError(f"diffusers can't draw with {pruned.folder}: {done.stderr.strip().splitlines()[-1]}")
    names = [f"{number:04d}.png" for number in range(len(recipe["prompts"]))]
    same = sum(_pixels(out / spec.stem / name) == _pixels(pictures / name) for name in names)
    return StockPictures(pruned, pictures, len(names), same)


def _pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()
