"""Bands settle where they stay, the null takes part in every comparison, and a single prompt has no interval."""

import numpy as np
import pytest
import torch

from surgery.spectra.band_damage import BandDamage, lean
from surgery.spectra.bands import octave_bands
from surgery.spectra.compare_pictures import damage_in_bands
from surgery.spectra.trajectory import (
    LATENTS,
    PREDICTED,
    Trajectories,
    ViewCurves,
    intervals_of,
    settled_at,
    settling_times,
)

SHARES = np.array([1.0, 0.75, 0.5, 0.25, 0.0])


@pytest.mark.parametrize(
    ("curve", "share"),
    [
        ([1, 1, 1, 1, 1], 1.0),
        ([0, 0, 0.96, 1.04, 1], 0.5),
        ([0, 1, 0.9, 1, 1], 0.25),  # it was there before, and left again
        ([0, 0, 0, 0.94, 1], 0.0),
        ([0, 2, 0, 2, 1], 0.0),
    ],
)
def test_a_band_has_settled_where_its_power_stays_within_a_twentieth_of_its_end(curve, share):
    power = np.array(curve, dtype=float)[None, :, None]
    assert settled_at(power, SHARES).tolist() == [[share]]


def trajectories(power, null):
    rings = np.ones((len(SHARES), 3))
    views = (ViewCurves(name, 4, power, null, rings, rings) for name in (LATENTS, PREDICTED))
    return Trajectories(octave_bands(2), SHARES, tuple(views))


def power_of(*curves):
    """(N, T, 3): the curve in the one band, and what no comparison looks at in its mean and beyond."""
    found = np.full((len(curves), len(SHARES), 3), 7.0)
    found[:, :, 1] = curves
    return found


def test_the_difference_from_the_null_is_paired_by_prompt():
    """A model that is the null differs nowhere, however its prompts differ; twice its power is 1 more in log2."""
    null = power_of([1, 2, 3, 4, 5], [10, 20, 30, 40, 50])
    assert np.all(trajectories(null, null).views[0].differences() == 0)
    mean, low, high = intervals_of(trajectories(2 * null, null).views[0].differences())
    assert np.allclose(mean, 1) and np.allclose(low, 1) and np.allclose(high, 1)
    settled = settling_times(trajectories(null, null))
    assert [one.view for one in settled] == [PREDICTED]  # noisy latents never settle
    assert settled[0].difference.value == settled[0].difference.low == 0


def test_one_prompt_has_no_interval():
    found = settling_times(trajectories(power_of([1, 1, 1, 1, 1]), power_of([0, 0, 1, 1, 1])))[0]
    assert (found.model.value, found.null.value, found.difference.value) == (1.0, 0.5, 0.5)
    assert found.difference.low is None
    assert np.isnan(intervals_of(np.ones((1, 2, 3)))[1]).all()


def test_the_lean_is_detail_minus_layout():
    """Of five bands the middle one is of neither; a single band leans nowhere."""
    difference = np.array([[0.1, 0.1, 0.9, 0.5, 0.7], [0.1, 0.3, 0.0, 0.5, 0.7]])
    found = lean(BandDamage(difference, difference))
    assert found.value == pytest.approx(0.45) and found.low < 0.45 < found.high
    assert lean(BandDamage(difference[:, :1], difference[:, :1])) is None


def test_a_blurred_picture_is_damaged_in_its_high_bands_and_a_faded_one_in_all_alike():
    """The change of power says which way: -2 in log2 is a quarter of the power."""
    pictures = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    coefficients = torch.fft.fft2(pictures)
    cycles = torch.from_numpy(np.hypot(*np.meshgrid(np.fft.fftfreq(32) * 32, np.fft.fftfreq(32) * 32)))
    blurred = damage_in_bands(torch.fft.ifft2(coefficients * (cycles < 8)).real, pictures, octave_bands(16))
    np.testing.assert_allclose(blurred.difference.mean(axis=0), [0, 0, 0, 1], atol=1e-6)
    assert lean(blurred).low > 0.4
    faded = damage_in_bands(pictures / 2, pictures, octave_bands(16))
    np.testing.assert_allclose(faded.change, -2, atol=1e-6)
    np.testing.assert_allclose(faded.difference, 0.2, atol=1e-6)
    assert lean(faded).value == pytest.approx(0, abs=1e-6)
