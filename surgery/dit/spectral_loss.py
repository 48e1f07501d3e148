"""Two pictures -> how far the amplitudes of their spectra are apart: the loss that the study adds for `freq_gate`."""

import torch

SPECTRAL_WEIGHT = 0.1  # of it beside the mean squared error, in the study


def spectral_loss(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """mean | |F(predicted)| - |F(target)| |, a scalar, of noise that was predicted and that was there (..., H, W).

    F is the unitary two-dimensional discrete Fourier transform of real input: `rfft2(norm="ortho")`, half of a spectrum
    whose other half mirrors it. All frequencies and timesteps weigh alike. The loss sees no phase: it is 0 for equal
    pictures, and as well for one and its negative, or its shift; so it only ever goes beside another loss, as
    MSE + SPECTRAL_WEIGHT * spectral_loss. In half precision it is computed in float32.

    Raises:
        ValueError: the two are not of one shape.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"the prediction is {tuple(predicted.shape)}, and the target {tuple(target.shape)}")
    return (_amplitudes(predicted) - _amplitudes(target)).abs().mean()


def _amplitudes(pictures: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfft2(pictures.float() if pictures.dtype.itemsize < 4 else pictures, norm="ortho").abs()
