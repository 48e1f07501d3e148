"""Rows of clean pictures with labels -> batches of noised ones, each a function of its number; and the losses of them.

x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e (DDPM, arXiv 2006.11239, eq. 4), and the model is to tell e. Rows come in a new
order each epoch; the timesteps of a batch are spread evenly over the noise range, one at random in each of as many
parts.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch.nn import functional as F

from surgery.dit.spectral import spectral_loss
from surgery.training.dit.config import SPECTRAL
from surgery.training.dit.encoded_pictures import CLEAN, Held
from surgery.training.dit.labels import Labels
from surgery.training.loop import ERROR, seed_of
from surgery.training.shelf import Rows

MSE = "mse"
ORDERS, BINS = 2**40, 2**41  # between the seeds of batches, those of orders of rows, and those of held-out noise


@dataclass(frozen=True)
class NoisedPictures:
    """What the model is given, and the noise that it is to tell."""

    noised: torch.Tensor
    timesteps: torch.Tensor
    noise: torch.Tensor
    labels: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingBatches:
    """Batches of `size` of the rows `learnt`, whose labels are `numbers`; a share `dropout` of labels is left out."""

    clean: Rows | Held
    learnt: Sequence[int]
    numbers: torch.Tensor
    labels: Labels
    scheduler: DDPMScheduler
    size: int
    dropout: float
    seed: int

    def __call__(self, number: int, device: torch.device) -> NoisedPictures:
        """The batch of a number, on a device."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, number))
        rows = [self._row(number * self.size + place) for place in range(self.size)]
        is_dropped = torch.rand(self.size, generator=generator) < self.dropout
        numbers = torch.where(is_dropped, self.labels.none, self.numbers[rows])
        clean = self.clean.read(rows)[CLEAN]
        noise = torch.randn(clean.shape, generator=generator)
        return _noised(self.scheduler, clean, noise, self._timesteps(generator), self.labels.arguments(numbers, device))

    def _row(self, place: int) -> int:
        epoch, within = divmod(place, len(self.learnt))
        return self.learnt[_order(self.seed, epoch, len(self.learnt))[within]]

    def _timesteps(self, generator: torch.Generator) -> torch.Tensor:
        places = torch.randperm(self.size, generator=generator)
        shares = (places + torch.rand(self.size, generator=generator, dtype=torch.float64)) / self.size
        return (shares * self.scheduler.config.num_train_timesteps).long()


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(ORDERS + seed_of(seed, epoch))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def _noised(
    scheduler: DDPMScheduler,
    clean: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    labels: Mapping[str, torch.Tensor],
) -> NoisedPictures:
    device = next(iter(labels.values())).device
    noised = scheduler.add_noise(clean, noise, timesteps)
    return NoisedPictures(noised.to(device), timesteps.to(device), noise.to(device), labels)


@dataclass(frozen=True)
class DenoisingLoss:
    """The mean square of the error of the noise, and of `spectral` weight how far its amplitudes are off."""

    spectral: float

    def __call__(self, model: Any, batch: NoisedPictures) -> dict[str, torch.Tensor]:
        """The losses by their names."""
        predicted = predict(model, batch)
        losses = {MSE: F.mse_loss(predicted, batch.noise)}
        if self.spectral:
            losses[SPECTRAL] = spectral_loss(predicted, batch.noise)
        return losses


def predict(model: Any, batch: NoisedPictures) -> torch.Tensor:
    """The noise that a model sees in a batch, in float32."""
    return model(batch.noised, timestep=batch.timesteps, **batch.labels).sample.float()


@dataclass(frozen=True)
class HeldOutLoss:
    """Measures models by the mean square of the error of the noise in held-out rows, bin by bin of the noise range.

    Every model gets the same noise at the same timesteps, the middles of the bins, and every row its label.
    """

    clean: Rows | Held
    held_out: Sequence[int]
    numbers: torch.Tensor
    labels: Labels
    scheduler: DDPMScheduler
    bins: int
    size: int
    device: torch.device

    @torch.no_grad()
    def __call__(self, model: Any) -> dict[str, float]:
        """The mean over the bins, and that of each by the name of its middle."""
        found = {name_of_bin(number, self.bins): self._of_bin(model, number) for number in range(self.bins)}
        return {ERROR: sum(found.values()) / self.bins, **found}

    def _of_bin(self, model: Any, number: int) -> float:
        errors = []
        for start in range(0, len(self.held_out), self.size):
            rows = list(self.held_out[start : start + self.size])
            generator = torch.Generator().manual_seed(BINS + seed_of(number, start))
            clean = self.clean.read(rows)[CLEAN]
            noise = torch.randn(clean.shape, generator=generator)
            step = int((number + 0.5) / self.bins * self.scheduler.config.num_train_timesteps)
            labels = self.labels.arguments(self.numbers[rows], self.device)
            batch = _noised(self.scheduler, clean, noise, torch.full((len(rows),), step), labels)
            errors.append((predict(model, batch) - batch.noise).double().square().flatten(1).mean(dim=1).cpu())
        return float(torch.cat(errors).mean())


def name_of_bin(number: int, bins: int) -> str:
    """The middle of a bin, as a share of the noise range."""
    return f"{(number + 0.5) / bins:.3g}"
