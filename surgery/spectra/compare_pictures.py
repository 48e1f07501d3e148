"""Pictures of a variant and of the baseline, prompt by prompt -> which bands of frequency the surgery has damaged."""

import numpy as np
import torch

from surgery.errors import InputError
from surgery.spectra.band_damage import BandDamage
from surgery.spectra.bands import Bands
from surgery.spectra.power import band_differences, power_spectrum
from surgery.spectra.trajectory import LEAST_POWER


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
