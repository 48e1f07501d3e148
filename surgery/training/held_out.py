"""Prompts that training never sees -> the denoising error of a model on them, bin by bin of the noise range.

The same number that `surgery evaluate` reports: |y' - y| / |y| of each row, y the teacher's prediction and y' the
model's, at the middle of each bin. What the teacher predicts is computed once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from surgery.training.call_form import CallForm
from surgery.training.loop import ERROR
from surgery.training.noised_batches import NoisedBatch, noised_batch
from surgery.training.shelf import Rows


@dataclass(frozen=True)
class HeldOut:
    """Measures models; `cases` are for each bin its batches with what the teacher predicts there."""

    form: CallForm
    cases: Mapping[str, Sequence[tuple[NoisedBatch, torch.Tensor]]]

    @torch.no_grad()
    def __call__(self, model: Any) -> dict[str, float]:
        """The mean error, and that of each bin by the name of its middle."""
        found = {name: self._error_of_bin(model, batches) for name, batches in self.cases.items()}
        return {ERROR: sum(found.values()) / len(found), **found}

    def _error_of_bin(self, model: Any, batches: Sequence[tuple[NoisedBatch, torch.Tensor]]) -> float:
        errors = [
            relative_errors(self.form.prediction_of(model(*batch.args, **batch.kwargs)), expected)
            for batch, expected in batches
        ]
        return float(torch.cat(errors).mean())


def relative_errors(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """|found - expected| / |expected| of each row (B,), in float64."""
    found, expected = found.double().flatten(1), expected.double().flatten(1)
    return ((found - expected).norm(dim=1) / expected.norm(dim=1)).cpu()


@torch.no_grad()
def prepare_held_out(
    teacher: Any,
    form: CallForm,
    scheduler: Any,
    latents: Rows,
    texts: Rows,
    *,
    seed: int,
    bins: int,
    batch_size: int,
    device: torch.device,
) -> HeldOut:
    """What models are measured by: row k of the latents has the text of row k, and the noise of `seed + k`, a bin."""
    cases = {}
    for number in range(bins):
        batches = []
        for start in range(0, len(latents), batch_size):
            rows = range(start, min(start + batch_size, len(latents)))
            clean = latents.read(rows)["latents"]
            noise = torch.stack([_noise(clean.shape[1:], seed + row, number) for row in rows])
            shares = torch.full((len(rows),), (number + 0.5) / bins, dtype=torch.float64)
            batch = noised_batch(form, scheduler, clean, noise, shares, texts.read(rows), device)
            batches.append((batch, form.prediction_of(teacher(*batch.args, **batch.kwargs)).clone()))
        cases[f"{(number + 0.5) / bins:.3g}"] = batches
    return HeldOut(form, cases)


def _noise(shape: Sequence[int], seed: int, number: int) -> torch.Tensor:
    """Noise of its own for each row and bin, as of `experiment.denoising_error`."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(2**16 * (number + 1) + seed))
