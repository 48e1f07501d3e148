"""Pictures or latents -> how much of their mean square lies in each band, and their radial spectrum.

With F = fft2(x) / (H W) Parseval's identity reads mean(x^2) = sum |F|^2, so that power in bands adds up to the mean
square whatever the size, and a wave of amplitude a has a^2 / 2 in its band, in latents as in pictures. Power per
frequency, times H W, is 1 for white noise of variance 1: that is what radial spectra show.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.spectra.bands import Array, Bands, frequencies_of


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Of N pictures: power by band (N, 2 + B), the mean first and last what lies beyond the bands; and by ring (N, R),
    the power per frequency in units of white noise, ring r holding the frequencies from r - 0.5 to r + 0.5 cycles.
    """

    power: Array
    rings: Array


def power_spectrum(pictures: torch.Tensor, bands: Bands) -> Spectrum:
    """The spectrum of pictures (N, channels, height, width), a mean over channels, in float64."""
    squares = squared_coefficients(pictures).mean(axis=1)  # (N, H, W)
    height, width = squares.shape[1:]
    num_places = 2 + bands.within(min(height, width) / 2)
    power = _summed(squares, places_of(height, width, bands), num_places)
    numbers = ring_numbers(height, width)
    num_rings = min(height, width) // 2 + 1
    counts = np.bincount(numbers.ravel())[:num_rings]
    rings = _summed(squares, numbers, int(numbers.max()) + 1)[:, :num_rings] * (height * width) / counts
    return Spectrum(power, rings)


def squared_coefficients(pictures: torch.Tensor) -> Array:
    """|F|^2 (N, channels, height, width), which adds up to the mean square of each channel."""
    coefficients = torch.fft.fft2(pictures.detach().cpu().double(), norm="forward")
    found: Array = (coefficients.real**2 + coefficients.imag**2).numpy()
    return found


def band_differences(found: torch.Tensor, expected: torch.Tensor, bands: Bands) -> Array:
    """How far pictures differ from others in each band (N, B): |F - G|^2 / (|F|^2 + |G|^2), each summed over the band.

    0 where they agree, 1 where they have nothing to do with each other, 2 where one is the other's negative; 0 where
    both have nothing in the band.
    """
    apart = power_spectrum(found - expected, bands).power
    both = power_spectrum(found, bands).power + power_spectrum(expected, bands).power
    shares: Array = np.divide(apart, both, out=np.zeros_like(apart), where=both > 0)[:, 1:-1]
    return shares


@functools.cache
def places_of(height: int, width: int, bands: Bands) -> NDArray[np.intp]:
    """The band of each coefficient (height, width), see `Bands.places`."""
    return bands.places(frequencies_of(height, width), min(height, width) / 2)


@functools.cache
def ring_numbers(height: int, width: int) -> NDArray[np.intp]:
    """The ring of each coefficient (height, width): its frequency rounded to whole cycles, halves up."""
    return np.floor(frequencies_of(height, width) + 0.5).astype(np.intp)


def _summed(squares: Array, places: NDArray[np.intp], num: int) -> Array:
    """Sums over places: (N, H, W) and (H, W) -> (N, num)."""
    rows = [np.bincount(places.ravel(), weights=row.ravel(), minlength=num) for row in squares]
    return np.stack(rows) if rows else np.zeros((0, num))
