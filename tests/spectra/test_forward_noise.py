"""The null is what its formula says, on made data; and it is what the study drew."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from surgery.spectra.bands import octave_bands
from surgery.spectra.forward_noise import (
    filter_noised,
    mean_spectrum,
    noise_forward,
    noise_of_null,
)
from surgery.spectra.power import places_of, power_spectrum, ring_numbers
from surgery.spectra.prediction import NoiseLevel

BANDS = octave_bands(8)
LEVELS = [NoiseLevel(1.0, 0.0), NoiseLevel(0.8, 0.6), NoiseLevel(0.3, 0.7), NoiseLevel(1.0, 20.0), NoiseLevel(0.0, 1.0)]
STUDY = Path(__file__).parents[2] / "benchmarks" / "forward_noise_of_the_study.py"


@pytest.fixture(scope="module")
def latents():
    """800 latents (4, 16, 16) whose power falls with the frequency."""
    white = torch.randn(800, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    fall = 3 / (1 + torch.from_numpy(ring_numbers(16, 16)).float())
    return torch.fft.ifft2(torch.fft.fft2(white) * fall).real


@pytest.mark.parametrize("level", LEVELS)
def test_noised_forward_latents_have_the_power_of_the_formula(latents, level):
    """a^2 P + s^2 N in each band: by 800 draws, to five standard errors of the band with the fewest frequencies."""
    noise = noise_of_null((4, 16, 16), range(800))
    found = power_spectrum(noise_forward(latents, noise, level), BANDS).power
    white = np.bincount(places_of(16, 16, BANDS).ravel()) / 256
    expected = level.signal**2 * power_spectrum(latents, BANDS).power + level.noise**2 * white
    error = found.std(axis=0) / np.sqrt(len(found))
    assert np.all(np.abs((found - expected).mean(axis=0)) <= 5 * error + 1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_the_linear_estimate_has_the_power_of_wieners_formula(latents, level):
    """a^2 S^2 / (a^2 S + s^2 N); all of it where nothing is noised, nothing at pure noise."""
    spectrum = mean_spectrum(latents)
    noised = noise_forward(latents, noise_of_null((4, 16, 16), range(800)), level)
    found = mean_spectrum(filter_noised(noised, spectrum, level))
    bottom = level.signal**2 * spectrum + level.noise**2 / 256
    np.testing.assert_allclose(found, level.signal**2 * spectrum**2 / bottom, rtol=0.15, atol=1e-12)


def test_the_linear_estimate_is_the_best_of_all_gains(latents):
    """Half as much and half again as much of it are further from the clean latents."""
    level = LEVELS[1]
    noised = noise_forward(latents, noise_of_null((4, 16, 16), range(800)), level)
    best = filter_noised(noised, mean_spectrum(latents), level)
    errors = [float(((gain * best - latents) ** 2).mean()) for gain in (0.9, 1.0, 1.1)]
    assert errors[1] == min(errors)


def test_the_noise_of_the_null_is_that_of_no_picture():
    """A prompt's own seed gives its picture's noise; a null of the same noise would agree with it by construction."""
    one = noise_of_null((4, 8, 8), [3])[0]
    assert not torch.equal(one, torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(one, noise_of_null((4, 8, 8), [2, 3])[1])


def test_the_figure_of_the_dit_study_is_forward_noising():
    """Its three upper bands fit with R^2 > 0.996, their noise that of white pixels; what is no such curve does not."""
    study = runpy.run_path(str(STUDY))
    noise_levels, bands = study["read_study"]()
    fits = {name: study["fit_forward_noise"](noise_levels, magnitudes) for name, magnitudes in bands.items()}
    for name in ("mid_low", "mid_high", "high"):
        assert fits[name].r_squared > 0.996, name
        assert fits[name].noise == pytest.approx(study["NOISE"], rel=0.02)
    backwards = study["fit_forward_noise"](noise_levels, bands["high"][::-1])
    assert backwards.r_squared < 0.5
