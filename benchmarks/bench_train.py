"""Steps of `surgery train` against a bare PyTorch loop of the same model and pictures: digits. Aim: 0.9 or more.

The bare loop has its rows in memory, and does nothing but noise them, run the model, and move the weights and their
average.
"""

import statistics
import time
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import nn
from torch.nn import functional as F
from training_steps import loop_began, seconds_of_step

from surgery.dit import DiT
from surgery.training.dit.encoded_pictures import Held
from surgery.training.dit.labels import Labels
from surgery.training.dit.noised_pictures import DenoisingLoss, TrainingBatches
from surgery.training.dit.read_config import load_config

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
    labels = Labels(tuple(map(str, range(CLASSES))))
    batches = TrainingBatches(
        Held(clean), range(len(clean)), numbers, labels, DDPMScheduler(), SIZE, CONFIG.label_dropout, 0
    )
    return loop_began(build(), batches, DenoisingLoss(0.0), CONFIG.overridden(steps=STEPS).settings)


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
