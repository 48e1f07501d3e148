"""Heat maps against the figures of the SD3.5 study, whose values were recovered from its pictures."""

import re
from pathlib import Path

import numpy as np
import pytest

from surgery.errors import InputError
from surgery.profiles.heatmaps import (
    clip_at_percentile,
    combine_streams,
    outliers,
    percentile,
    without_outliers,
    z_scores,
)

DATA = Path(__file__).parents[1] / "data" / "sd35-large"
BOUND = 4e-4  # of the recovery, for percentiles: see the half-widths of the recovered cells


@pytest.fixture(scope="module")
def study():
    """The angular distances of image and text, (10, 38) and (10, 37)."""
    names = ("image", "text")
    return {
        n: np.loadtxt(DATA / f"angular_{n}.csv", delimiter=",", skiprows=1, usecols=range(1, 39 - (n == "text")))
        for n in names
    }


@pytest.mark.parametrize(
    ("stream", "percent", "published"),
    [("image", 90, 0.1341), ("text", 90, 0.1403), ("image", 95, 0.2050), ("text", 95, 0.1677)],
)
def test_percentiles_are_the_published_ones(study, stream, percent, published):
    assert percentile(study[stream], percent) == pytest.approx(published, abs=BOUND)
    assert clip_at_percentile(study[stream], percent).max() == percentile(study[stream], percent)


def test_outliers_are_the_published_ones(study):
    image, text = outliers(study["image"]), outliers(study["text"])
    assert [n for n in range(38) if image[:, n].all()] == [0, 35] and image.sum() == 20
    assert [n for n in range(37) if text[:, n].all()] == [0] and text.sum() == 10
    assert np.nanmax(without_outliers(study["image"])) == pytest.approx(0.1744, abs=1e-3)
    assert np.nanmax(without_outliers(study["text"])) == pytest.approx(0.1977, abs=1e-3)


def test_the_last_image_layer_is_left_out_of_the_combined_map(study):
    both = combine_streams([study["text"], study["image"]])
    assert both.shape == (10, 37)
    assert np.array_equal(both, np.add(study["text"], study["image"][:, :-1]) / 2.0)
    assert (both.min(), both.max()) == (pytest.approx(0.0284, abs=1e-3), pytest.approx(0.3833, abs=1e-3))


def test_weights_scale_each_stream():
    ones = np.ones((2, 3))
    assert np.array_equal(combine_streams([ones, 2 * ones], [2.0, 0.5]), 1.5 * ones)


def test_empty_bins_stay_empty_and_do_not_count():
    heatmap = np.array([[1.0, 2.0, 3.0], [np.nan] * 3])
    assert np.array_equal(clip_at_percentile(heatmap, 50), [[1, 2, 2], [np.nan] * 3], equal_nan=True)
    assert not outliers(heatmap).any() and np.isnan(z_scores(heatmap)[1]).all()


def test_z_scores_are_of_all_cells_as_the_whole_population():
    assert np.allclose(z_scores(np.array([[1.0, 2.0], [3.0, 6.0]])) * np.sqrt(3.5), [[-2, -1], [0, 3]])


def test_cells_that_are_all_equal_have_no_outliers():
    assert np.array_equal(z_scores(np.ones((2, 2))), np.zeros((2, 2)))


def test_streams_with_other_bins_are_refused():
    with pytest.raises(InputError, match=re.escape("the streams have 2 and 3 timestep bins")):
        combine_streams([np.ones((2, 3)), np.ones((3, 3))])
    with pytest.raises(InputError, match="no heat map"):
        combine_streams([])
