"""The null that a model's trajectory is held against: its own last latents, noised forward.

A picture's spectrum falls with frequency and noise is flat, so that any noising process uncovers low frequencies first,
whatever undoes it. Such a curve says nothing of a model; only what differs from it does.

For x_t = a x_0 + s e the expected power in a band is a^2 P + s^2 N, P that of x_0 and N that of white noise. What can
be told of x_0 from x_t by one who knows nothing but the mean spectrum S of such latents is the linear filter
a S / (a^2 S + s^2 N) of it (Wiener 1949), whose power is a^2 S^2 / (a^2 S + s^2 N): the null of a model's predictions.
"""

from collections.abc import Sequence

import numpy as np
import torch

from surgery.spectra.bands import Array
from surgery.spectra.power import ring_numbers, squared_coefficients
from surgery.spectra.prediction import NoiseLevel

STREAM = 2_000_003  # added to seeds: the noise of the null is none that a picture is drawn from


def noise_of_null(shape: Sequence[int], seeds: Sequence[int]) -> torch.Tensor:
    """White noise (batch, channels, height, width), one draw for all steps of a prompt."""
    rows = [torch.randn(*shape, generator=torch.Generator().manual_seed(STREAM + seed)) for seed in seeds]
    return torch.stack(rows)


def noise_forward(latents: torch.Tensor, noise: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
    """Latents noised to a level."""
    return level.signal * latents + level.noise * noise


def mean_spectrum(latents: torch.Tensor) -> Array:
    """|F|^2 (channels, height, width) of latents (N, ...), a mean over them and over each ring of frequencies."""
    squares = squared_coefficients(latents).mean(axis=0)
    numbers = ring_numbers(*squares.shape[1:])
    counts = np.bincount(numbers.ravel())
    rings = np.stack([np.bincount(numbers.ravel(), weights=channel.ravel()) / counts for channel in squares])
    found: Array = rings[:, numbers]
    return found


def filter_noised(noised: torch.Tensor, spectrum: Array, level: NoiseLevel) -> torch.Tensor:
    """The linear estimate of the clean latents from noised ones (batch, channels, height, width)."""
    height, width = noised.shape[2:]
    signal, noise = level.signal, level.noise
    bottom = signal**2 * spectrum + noise**2 / (height * width)
    gain = np.divide(signal * spectrum, bottom, out=np.zeros_like(spectrum), where=bottom > 0)
    filtered = torch.fft.ifft2(torch.fft.fft2(noised.double()) * torch.from_numpy(gain)).real
    return filtered.float()
