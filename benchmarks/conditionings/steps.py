"""How long a step of training takes, by config: CPU time, in turns, so that what else runs meanwhile falls on all."""

import statistics
import time
from collections.abc import Callable

import torch
from models import CONFIGS, FOUR, OTHERS
from torch.nn import functional as F

from surgery.dit import DiT
from surgery.training.dit.read_config import load_config

WARM, ROUNDS = 3, 20
CLASSES = 10


def seconds_of_steps() -> dict[str, float]:
    """The median step of each config: forward, backward, and AdamW, without the moving average that all share."""
    steps = {config: _stepper(config) for config in (*FOUR, *OTHERS)}
    taken: dict[str, list[float]] = {config: [] for config in steps}
    for _ in range(WARM + ROUNDS):
        for config, step in steps.items():
            began = time.process_time()
            step()
            taken[config].append(time.process_time() - began)
    return {config: statistics.median(values[WARM:]) for config, values in taken.items()}


def _stepper(name: str) -> Callable[[], None]:
    config = load_config(CONFIGS / f"{name}.yaml")
    model = DiT(**config.model, sample_size=config.data.size, in_channels=1, num_classes=CLASSES).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.settings.learning_rate)
    pictures = torch.randn(config.batch_size, 1, config.data.size, config.data.size)
    times, classes = (torch.randint(most, (config.batch_size,)) for most in (1000, CLASSES))

    def step() -> None:
        F.mse_loss(model(pictures, times, class_labels=classes).sample, pictures).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
