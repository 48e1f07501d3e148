"""Spearman's rank correlation of maps: its laws, scipy's own number, and an interval that counts no cell twice."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from surgery.errors import InputError
from surgery.metrics import rank_correlation as module
from surgery.metrics.rank_correlation import rank_correlation


def ends(found):
    return found.low, found.high


def correlated(rng, num, share):
    """Two samples of normal values with this correlation."""
    one, other = rng.normal(size=(2, num))
    return one, share * one + np.sqrt(1 - share**2) * other


def test_equal_maps_are_one_and_opposite_maps_minus_one():
    """And so in every draw: there is no width."""
    cells = np.random.default_rng(0).random((12, 10))
    for other, expected in ((cells, 1.0), (np.exp(5 * cells), 1.0), (-cells, -1.0)):
        found = rank_correlation(cells, other)
        assert (found.value, *ends(found)) == pytest.approx((expected, expected, expected))


@pytest.mark.parametrize("shape", [(12,), (12, 10)])
def test_a_permuted_map_is_near_zero_with_an_interval_that_holds_it(shape):
    rng = np.random.default_rng(3)
    cells = rng.random(shape)
    found = rank_correlation(cells, rng.permutation(cells.ravel()).reshape(shape))
    assert abs(found.value) < 0.3 and found.low < 0 < found.high


def test_the_number_is_that_of_scipy_with_ties_and_gaps():
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 5, (2, 9, 4)).astype(float)
    assert rank_correlation(one, other).value == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    one[2, 1], other[5] = np.nan, np.nan
    both = ~np.isnan(one) & ~np.isnan(other)
    found = rank_correlation(one, other, rows="layers")
    assert found.value == pytest.approx(spearmanr(one[both], other[both]).statistic)
    assert (found.num, found.method) == (8, "bootstrap over layers")
    assert rank_correlation(other, one, rows="layers") == found


def test_columns_that_only_repeat_a_row_make_nothing_surer():
    """Ten equal timesteps are one: an interval over cells drawn one by one would be a third as wide."""
    one, other = correlated(np.random.default_rng(2), 12, 0.5)
    alone = rank_correlation(one, other)
    many = rank_correlation(np.tile(one[:, None], 10), np.tile(other[:, None], 10))
    assert (many.value, *ends(many)) == pytest.approx((alone.value, *ends(alone)))
    cell_by_cell = rank_correlation(np.tile(one, 10), np.tile(other, 10))
    assert cell_by_cell.high - cell_by_cell.low < (alone.high - alone.low) / 2.5


@pytest.mark.parametrize(("share", "truth"), [(0.0, 0.0), (0.8, 0.786)])
def test_the_interval_holds_the_true_value_as_often_as_it_says(share, truth):
    """Of 300 samples of 12 rows; 0.92 is three standard errors (0.0126) below 0.958, measured over many more."""
    rng = np.random.default_rng(4)
    found = [rank_correlation(*correlated(rng, 12, share), draws=400) for _ in range(300)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.92


def test_where_ranks_say_nothing_nothing_is_said():
    values = np.arange(6.0)
    assert rank_correlation(values, np.ones(6)) is None
    assert rank_correlation(values, np.full(6, np.nan)) is None
    assert rank_correlation(values[:2], values[:2]) is None
    few = rank_correlation(values[:5], values[:5], rows="layers")
    assert (few.value, *ends(few), few.method) == (1.0, None, None, "of 5 layers")
    with pytest.raises(InputError, match=r"maps of shapes \(6,\) and \(5,\) can't be compared cell by cell"):
        rank_correlation(values, values[:5])


def test_draws_of_one_row_alone_count_for_nothing_and_parts_for_the_whole(monkeypatch):
    """Six rows: one in 7,776 draws has no ranks. Memory decides how many are drawn at once, and nothing else."""
    one, other = correlated(np.random.default_rng(6), 6, 0.5)
    found = rank_correlation(one, other, draws=40_000)
    assert -1 <= found.low < found.high <= 1
    monkeypatch.setattr(module, "CELLS_AT_ONCE", 3000)
    assert rank_correlation(one, other, draws=40_000) == found
