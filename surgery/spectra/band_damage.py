"""Pictures of variants and of the baseline, prompt by prompt -> which bands of frequency the surgery has damaged.

What the painters' study (arXiv 2407.09298) calls layout is in the low bands, fine detail in the high ones.
"""

from dataclasses import dataclass

import numpy as np
import torch

from surgery.errors import InputError
from surgery.metrics.intervals import Interval, mean_interval
from surgery.spectra.bands import Array, Bands
from surgery.spectra.power import band_differences, power_spectrum
from surgery.spectra.trajectory import LEAST_POWER


@dataclass(frozen=True, eq=False)
class BandDamage:
    """Of one view of a row, by prompt and band (N, B): how far it differs from the baseline (0 equal, 1 as two unrelated
    pictures), and how much more power the band has (log2; 0 as much, -1 half).
    """

    difference: Array
    change: Array


def damage_in_bands(found: torch.Tensor, baseline: torch.Tensor, bands: Bands) -> BandDamage:
    """What a row's pictures (N, channels, height, width) are against the baseline's of the same prompts and noise.

    Raises:
        InputError: they are not alike in number or size.
    """
    if found.shape != baseline.shape:
        raise InputError(
            f"a row has pictures {tuple(found.shape)}, and the baseline {tuple(baseline.shape)}; they do not pair"
        )
    own, other = (np.maximum(power_spectrum(each, bands).power[:, 1:-1], LEAST_POWER) for each in (found, baseline))
    return BandDamage(band_differences(found, baseline, bands), np.log2(own) - np.log2(other))


def lean(damage: BandDamage) -> Interval | None:
    """Detail minus layout: the mean difference in the upper half of the bands less that in the lower half, over 0 where
    detail suffers more; None of a single band. What it is by chance, the row of other noise says.
    """
    half = damage.difference.shape[1] // 2
    if not half:
        return None
    return mean_interval(damage.difference[:, -half:].mean(axis=1) - damage.difference[:, :half].mean(axis=1))
