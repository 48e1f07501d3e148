"""Steps of `surgery train` against a bare PyTorch loop of the same model and pictures: digits. Aim: 0.9 or more.

The bare loop has its rows in memory, and does nothing but noise them, run the model, and move the weights and their
average.
"""

import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import nn
from torch.nn import functional as F

from surgery.dit import DiT
from surgery.progress import quietly
from surgery.training.accelerator import open_accelerator
from surgery.training.dit.encoded_pictures import Held
from surgery.training.dit.labels import Labels
from surgery.training.dit.noised_pictures import DenoisingLoss, TrainingBatches
from surgery.training.dit.read_config import load_config
from surgery.training.loop import ERROR, train_

CONFIG = load_config(Path(__file__).parents[1] / "configs" / "digits" / "adaln_zero.yaml")
CLASSES, PICTURES, STEPS, ROUNDS = 10, 1024, 16, 5
SIZE = CONFIG.batch_size


def build() -> DiT:
    """The model of the config."""
    torch.manual_seed(0)
    return DiT(**CONFIG.model, sample_size=CONFIG.data.size, in_channels=1, num_classes=CLASSES).train()


def bare_seconds(clean: torch.Tensor, numbers: torch.Tensor) -> list[float]:
    """When each step of the bare loop began."""
    model, scheduler, began = build(), DDPMScheduler(), []
    values = list(model.parameters())
    optimizer = torch.optim.AdamW(values, lr=CONFIG.settings.learning_rate, weight_decay=0.0)
    average = EMAModel(values, decay=CONFIG.settings.ema)
    for _ in range(STEPS):
        began.append(time.perf_counter())
        rows, steps = torch.randint(len(clean), (SIZE,)), torch.randint(1000, (SIZE,))
        noise = torch.randn(SIZE, *clean.shape[1:])
        given = torch.where(torch.rand(SIZE) < CONFIG.label_dropout, CLASSES, numbers[rows])
        noised = scheduler.add_noise(clean[rows], noise, steps)
        F.mse_loss(model(noised, timestep=steps, class_labels=given).sample, noise).backward()
        nn.utils.clip_grad_norm_(values, 1.0)
        optimizer.step()
        average.step(values)
        optimizer.zero_grad(set_to_none=True)
    return began


def training_seconds(clean: torch.Tensor, numbers: torch.Tensor) -> list[float]:
    """When each step of the trainer began."""
    labels, began = Labels(tuple(map(str, range(CLASSES)))), []
    batches = TrainingBatches(
        Held(clean), range(len(clean)), numbers, labels, DDPMScheduler(), SIZE, CONFIG.label_dropout, 0
    )
    settings = CONFIG.overridden(steps=STEPS).settings

    def noting(number: int, device: torch.device) -> object:
        began.append(time.perf_counter())
        return batches(number, device)

    with tempfile.TemporaryDirectory() as folder, quietly():
        train_(
            build(),
            batches=noting,
            loss_of=DenoisingLoss(0.0),
            validate=measure_nothing,
            settings=settings,
            accelerator=open_accelerator(settings, Path(folder), device="cpu"),
            folder=Path(folder),
        )
    return began


def measure_nothing(_model: object) -> dict[str, float]:
    """No work."""
    return {ERROR: 0.0}


def seconds_of_step(began: list[float]) -> float:
    """Of the median step but the first."""
    return statistics.median(after - before for before, after in itertools.pairwise(began[1:]))


def main() -> None:
    """Print the ratio of speeds."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(PICTURES, 1, CONFIG.data.size, CONFIG.data.size, generator=generator) * 2 - 1
    numbers = torch.randint(CLASSES, (PICTURES,), generator=generator)
    ratios = []
    for _ in range(ROUNDS):
        bare = seconds_of_step(bare_seconds(clean, numbers))
        ratios.append(bare / seconds_of_step(training_seconds(clean, numbers)))
    print(f"training / bare loop: {statistics.median(ratios):.3f} of its steps a second (median of {ROUNDS} rounds)")


if __name__ == "__main__":
    main()
