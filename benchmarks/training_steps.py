"""When the steps of a loop of training began, and how long the median one took."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgery.progress import quietly
from surgery.training.accelerator import open_accelerator
from surgery.training.loop import ERROR, train_
from surgery.training.settings import TrainingSettings


def loop_began(
    model: nn.Module, batches: Callable[[int, torch.device], Any], loss_of: Any, settings: TrainingSettings
) -> list[float]:
    """When each step of the one trainer began, on the CPU and with nothing measured."""
    began: list[float] = []

    def noting(number: int, device: torch.device) -> object:
        began.append(time.perf_counter())
        return batches(number, device)

    with tempfile.TemporaryDirectory() as name, quietly():
        folder = Path(name)
        train_(
            model,
            batches=noting,
            loss_of=loss_of,
            validate=measure_nothing,
            settings=settings,
            accelerator=open_accelerator(settings, folder, device="cpu"),
            folder=folder,
        )
    return began


def measure_nothing(_model: object) -> dict[str, float]:
    """No work."""
    return {ERROR: 0.0}


def seconds_of_step(began: list[float]) -> float:
    """Of the median step but the first."""
    return statistics.median(after - before for before, after in itertools.pairwise(began[1:]))
