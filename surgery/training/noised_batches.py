"""Rows of clean latents with their conditions -> batches of noised ones, each a function of its number.

Rows come in a new order each epoch. The times of a batch are spread evenly over the noise range, one at random in each
of as many parts: their mean loss varies less than with times drawn apart.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from surgery.training.call_form import CallForm, noised_rows
from surgery.training.loop import seed_of
from surgery.training.shelf import Rows

ORDERS = 2**40  # between the seeds of batches and those of orders of rows


@dataclass(frozen=True)
class NoisedBatch:
    """A call of the transformer, and what it was noised from."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    clean: torch.Tensor
    noise: torch.Tensor
    shares: torch.Tensor


@dataclass(frozen=True)
class NoisedBatches:
    """Batches of `size` rows. Row k of `latents` has the condition `texts_of_rows[k]` of `texts`.

    A share `unconditional` of the rows gets the condition `no_text` instead (the empty prompt), as guidance will ask
    for it.
    """

    form: CallForm
    scheduler: Any
    latents: Rows
    texts: Rows
    texts_of_rows: Sequence[int]
    no_text: int | None
    unconditional: float
    size: int
    seed: int

    def __call__(self, number: int, device: torch.device) -> NoisedBatch:
        """The batch of a number, on a device."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, number))
        chosen = [self._row(number * self.size + place) for place in range(self.size)]
        dropped = torch.rand(self.size, generator=generator) < self.unconditional
        texts = [
            self.no_text if self.no_text is not None and is_dropped else self.texts_of_rows[row]
            for row, is_dropped in zip(chosen, dropped.tolist(), strict=True)
        ]
        clean = self.latents.read(chosen)["latents"]
        noise = torch.randn(clean.shape, generator=generator)
        return noised_batch(
            self.form, self.scheduler, clean, noise, self._shares(generator), self.texts.read(texts), device
        )

    def _row(self, place: int) -> int:
        epoch, within = divmod(place, len(self.latents))
        return int(_order(self.seed, epoch, len(self.latents))[within])

    def _shares(self, generator: torch.Generator) -> torch.Tensor:
        if not self.form.has_time_by_row:
            return torch.rand(1, generator=generator, dtype=torch.float64).expand(self.size)
        places = torch.randperm(self.size, generator=generator)
        return (places + torch.rand(self.size, generator=generator, dtype=torch.float64)) / self.size


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(ORDERS + seed_of(seed, epoch)))


def noised_batch(
    form: CallForm,
    scheduler: Any,
    clean: torch.Tensor,
    noise: torch.Tensor,
    shares: torch.Tensor,
    texts: dict[str, torch.Tensor],
    device: torch.device,
) -> NoisedBatch:
    """The call at noised rows; `texts` are conditions as they are kept."""
    noised, exact = noised_rows(scheduler, clean, noise, shares)
    conditions = {int(name): rows.to(device) for name, rows in texts.items()}
    args, kwargs = form.arguments(noised.to(device), exact.to(device), conditions)
    return NoisedBatch(args, kwargs, clean.to(device), noise.to(device), exact)
