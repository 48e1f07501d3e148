"""Models as they were trained -> those in the repository: seed 0 of each conditioning in float16, and the judge."""

import shutil
from pathlib import Path

import torch
from models import FOUR, name_of

from surgery.dit import ClassDiTPipeline
from surgery.training.dit.trained_folder import CARD, FACTS

SHIPPED = Path(__file__).with_name("shipped")
WEIGHTS = "judge.safetensors"


def ship(models: Path, weights: Path) -> None:
    """Write the folder `shipped` anew."""
    for config in FOUR:
        source, target = models / name_of(config, 0), SHIPPED / config
        shutil.rmtree(target, ignore_errors=True)
        pipe = ClassDiTPipeline.from_pretrained(source).to(torch.float16)
        pipe.save_pretrained(target)
        for name in (FACTS, CARD):
            shutil.copy(source / name, target / name)
    shutil.copy(weights, SHIPPED / WEIGHTS)
