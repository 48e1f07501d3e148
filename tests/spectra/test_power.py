"""Power in bands adds up, lies where its waves are, and means the same in latents as in pictures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surgery.errors import InputError
from surgery.spectra.bands import Bands, octave_bands, read_bands
from surgery.spectra.power import band_differences, places_of, power_spectrum

OCTAVES = Bands((2.0, 4.0, 8.0, 16.0, 32.0, 64.0))
SIDES = st.integers(2, 24)


def random_pictures(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wave(side, cycles, *, amplitude=1.0):
    """A plane wave (1, 1, side, side) with so many cycles along each axis."""
    rows, columns = (torch.arange(side, dtype=torch.float64) * 2 * np.pi * each / side for each in cycles)
    return amplitude * torch.cos(rows[:, None] + columns[None, :] + 0.3)[None, None]


@given(SIDES, SIDES, st.integers(1, 3))
@settings(max_examples=20)
def test_power_in_bands_adds_up_to_the_mean_square(height, width, channels):
    """Parseval: to 1e-6 of it (float64 keeps to 1e-12), whatever the shape, also where bands do not reach the limit."""
    pictures = 3 + random_pictures(2, channels, height, width)
    for bands in (octave_bands(min(height, width) / 2), Bands((2.5,))):
        power = power_spectrum(pictures, bands).power
        np.testing.assert_allclose(power.sum(axis=1), (pictures**2).mean(dim=(1, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("cycles", [(1, 0), (0, 2), (3, 4), (5, 3), (7, 0), (4, 4)])
def test_a_wave_lies_in_its_band_in_latents_as_in_pictures(cycles):
    """Of amplitude 1.4 it has 1.4^2 / 2 of power there, on a grid of 16 as on one of 128, and nothing elsewhere."""
    frequency = np.hypot(*cycles)
    band = 1 + int(np.searchsorted(OCTAVES.edges, frequency, side="right"))
    for side in (16, 128):
        power = power_spectrum(wave(side, cycles, amplitude=1.4), OCTAVES).power[0]
        assert power[band] == pytest.approx(1.4**2 / 2)
        assert np.delete(power, band) == pytest.approx(0, abs=1e-12)


def test_a_frequency_of_an_oblong_picture_counts_along_its_shorter_side():
    """A wave of 12 cycles along the side of 96 is one of 4 to the 32 of the other side, so as fast as 4 along that."""
    columns = torch.arange(96, dtype=torch.float64) * 2 * np.pi * 12 / 96
    power = power_spectrum(torch.cos(columns).expand(1, 1, 32, 96), OCTAVES).power[0]
    assert np.flatnonzero(power > 1e-9).tolist() == [3]  # the mean, 0-2, 2-4, 4-8


def test_white_noise_is_flat():
    """In expectation each ring holds 1, and each band the share of frequencies in it; to five standard errors."""
    found = power_spectrum(random_pictures(400, 4, 16, 16), OCTAVES)
    counts = np.array([8, 12, 16, 32])  # frequencies of rings 1 to 4 of a grid of 16
    assert np.abs(found.rings.mean(axis=0)[1:5] - 1).max() < 5 * np.sqrt(2 / (1600 * counts.min()))
    shares = np.bincount(places_of(16, 16, OCTAVES).ravel()) / 256
    np.testing.assert_allclose(found.power.mean(axis=0), shares, rtol=0.05)


def test_what_lies_beyond_a_grids_limit_is_in_no_band():
    """A grid of 16 holds three of six octaves; its diagonals of up to 11.3 cycles are in none."""
    assert OCTAVES.within(8) == 3
    power = power_spectrum(wave(16, (7, 7)), OCTAVES).power[0]
    assert power.shape == (5,) and power[-1] == pytest.approx(0.5)
    assert power_spectrum(wave(16, (8, 0)), OCTAVES).power[0, 3] > 0.4  # the limit itself is of the last band


def test_pictures_differ_by_0_from_themselves_by_1_from_others_and_by_2_from_their_negatives():
    """In every band."""
    one, other = random_pictures(50, 3, 32, 32), random_pictures(50, 3, 32, 32, seed=1)
    bands = octave_bands(16)
    assert np.all(band_differences(one, one, bands) == 0)
    np.testing.assert_allclose(band_differences(one, other, bands).mean(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(band_differences(one, -one, bands), 2)
    blank = torch.zeros(1, 3, 32, 32)
    assert np.all(band_differences(blank, blank, bands) == 0)


def test_bands_are_read_as_octaves_or_as_edges():
    """By themselves as many octaves as fit."""
    assert read_bands(None, 64).edges == OCTAVES.edges
    assert read_bands("3", 64).names == ["0-16", "16-32", "32-64"]
    assert read_bands("6", 64) == octave_bands(64)
    assert read_bands("3,10,64", 64).names == ["0-3", "3-10", "10-64"]
    assert read_bands("2,2.1,4", 64).names[1] == "2-2.1"  # 2 itself lies in it


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "7",
            r"7 octaves do not fit below the Nyquist limit of 64 .* write --bands 1 to 6, or .* --bands 2,4,8,16,32,64",
        ),
        ("0", "0 octaves do not fit"),
        ("2,100", r"a band ends at 100 cycles per picture, and the pictures have 64 at most .* write edges up to 64"),
        ("8,4", "the edges of bands rise from above 0, and 8,4 do not; write them like --bands 2,4,8,16"),
        ("2,nan", "the edges of bands rise"),
        ("0,4", "the edges of bands rise"),
        (
            "2,2.1,2.2,4",
            "no frequency of the picture lies from 2.1 to 2.2 cycles; write wider bands, like --bands 2,4,8",
        ),
        ("0.5,4", "no frequency of the picture lies from 0 to 0.5 cycles"),
        ("low", '--bands takes a number of octaves, or upper edges in cycles per picture, not "low"; write --bands 4'),
    ],
)
def test_bands_that_do_not_fit_are_refused_with_what_does(text, match):
    """Beside their nearest valid neighbours."""
    with pytest.raises(InputError, match=match):
        read_bands(text, 64)
