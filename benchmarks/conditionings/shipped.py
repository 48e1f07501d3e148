"""Models as they were trained -> those in the repository: seed 0 of each conditioning in float16, and the judge."""

import shutil
from pathlib import Path

from models import FOUR, name_of
from safetensors.torch import load_file, save_file

SHIPPED = Path(__file__).with_name("shipped")
WEIGHTS = "judge.safetensors"


def ship(models: Path, weights: Path) -> None:
    """Write the folder `shipped` anew."""
    shutil.rmtree(SHIPPED, ignore_errors=True)
    for config in FOUR:
        shutil.copytree(models / name_of(config, 0), SHIPPED / config)
        for file in (SHIPPED / config / "transformer").glob("*.safetensors"):
            save_file({name: value.half() for name, value in load_file(file).items()}, file, {"format": "pt"})
    shutil.copy(weights, SHIPPED / WEIGHTS)
