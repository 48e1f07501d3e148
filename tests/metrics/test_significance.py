"""One-sided tests: a mark at 2.5% is an interval of 95% that lies on one side, and many are corrected together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind, ttest_rel

from surgery.errors import InputError
from surgery.metrics.intervals import Interval, difference_interval, mean_interval
from surgery.metrics.significance import adjust, p_of_intervals, p_of_pairs

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.3, 0.6, 2.0])
def test_two_and_a_half_percent_are_an_interval_above_zero(shift):
    """Two roads: the test, and the interval that the table prints."""
    for num in (2, 5, 40):
        one, other = RNG.normal(shift, 1, num), RNG.normal(0, 1, num)
        p = p_of_pairs(one, other)
        assert p == pytest.approx(ttest_rel(one, other, alternative="greater").pvalue)
        assert (p <= 0.025) == (difference_interval(one, other).low >= 0)


def test_values_that_are_equal_are_no_smaller_and_no_larger():
    assert p_of_pairs([1.0, 2.0], [1.0, 2.0]) == 0.0
    assert p_of_pairs([2.0, 3.0], [1.0, 2.0]) == 0.0
    assert p_of_pairs([1.0, 2.0], [2.0, 3.0]) == 1.0


def test_an_infinite_difference_counts_as_the_largest_that_is_not():
    """PSNR of pictures that are equal."""
    inf = float("inf")
    assert p_of_pairs([inf, inf], [30.0, 40.0]) == 0.0
    assert p_of_pairs([inf, inf], [inf, inf]) == 0.0
    assert p_of_pairs([inf, 3.0, 1.0, 0.5], [0.0] * 4) == p_of_pairs([3.0, 3.0, 1.0, 0.5], [0.0] * 4)
    assert p_of_pairs([inf, 0.0], [0.0, inf]) is None


def test_what_tells_nothing_has_no_p_value():
    assert p_of_pairs([1.0], [0.0]) is None
    assert p_of_pairs([1.0, float("nan")], [0.0, 0.0]) is None
    assert p_of_intervals(Interval(3.0, None, None, 9, ""), Interval(1.0, 0.9, 1.1, 9, "")) is None
    with pytest.raises(InputError, match="can't be paired"):
        p_of_pairs([1.0, 2.0], [1.0])


def test_intervals_that_are_far_apart_tell_two_numbers_apart():
    """Of few samples that are independent they say what Welch's test of them says."""
    one, other = RNG.normal(0.4, 1, 6), RNG.normal(0, 2, 9)
    expected = ttest_ind(one, other, equal_var=False, alternative="greater").pvalue
    found = p_of_intervals(mean_interval(one), mean_interval(other))
    assert found == pytest.approx(expected, rel=1e-4)  # six digits of the freedom are kept
    exact = Interval(1.0, 1.0, 1.0, 9, "")
    assert (p_of_intervals(exact, exact), p_of_intervals(exact, Interval(2.0, 2.0, 2.0, 9, ""))) == (0.0, 1.0)


def adjusted_by_hand(p_values):
    """The definition: the least over all ranks k of at least one's own of m p_(k) / k."""
    ordered = sorted(p_values)
    num = len(ordered)
    return [
        min(1.0, *(num * ordered[rank] / (rank + 1) for rank in range(num) if ordered[rank] >= own)) for own in p_values
    ]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_many_are_corrected_as_benjamini_and_hochberg_have_it(p_values):
    assert adjust(p_values) == pytest.approx(adjusted_by_hand(p_values))


def test_none_are_corrected_to_none():
    assert len(adjust([])) == 0
