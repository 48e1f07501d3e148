"""Intervals cover what they say, and are exact where there is nothing to spread."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from surgery.errors import InputError
from surgery.metrics.intervals import difference_interval, grouped_jackknife, mean_interval, median_interval


def test_a_mean_has_students_interval():
    values = np.random.default_rng(0).standard_normal(20)
    found = mean_interval(values, level=0.9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.value, found.num) == (pytest.approx(values.mean()), 20)


@pytest.mark.parametrize("value", [0.0, 1.0, np.inf])
def test_equal_values_have_no_width(value):
    found = mean_interval([value] * 3)
    assert (found.value, found.low, found.high) == (value, value, value)


def test_some_infinite_values_leave_the_interval_open():
    found = mean_interval([1.0, np.inf])
    assert (found.value, found.low, found.high) == (np.inf, None, None)


def test_what_is_common_to_a_pair_falls_out():
    generator = np.random.default_rng(0)
    prompts = generator.standard_normal(50) * 10
    baseline = prompts + generator.standard_normal(50) * 0.1
    variant = prompts + 0.5 + generator.standard_normal(50) * 0.1
    found = difference_interval(variant, baseline)
    assert 0.4 < found.low < 0.5 < found.high < 0.6
    alone = mean_interval(variant)
    assert alone.high - alone.low > 20 * (found.high - found.low)


def test_swapped_pairs_widen_the_interval():
    """The saboteur: pictures of another seed taken for the partner."""
    generator = np.random.default_rng(0)
    baseline = generator.standard_normal(50) * 10
    right, wrong = (
        difference_interval(baseline + 0.5, baseline),
        difference_interval(np.roll(baseline, 1) + 0.5, baseline),
    )
    assert right.high - right.low < 1e-6 < wrong.high - wrong.low


@given(st.integers(10, 60), st.integers(2, 5))
def test_the_jackknife_of_a_mean_has_no_bias_for_equal_groups(num_each, groups):
    values = np.random.default_rng(0).standard_normal(num_each * groups)
    found = grouped_jackknife(lambda rows: values[rows].mean(), len(values), num_groups=groups)
    assert found.bias == pytest.approx(0, abs=1e-12)


def test_the_jackknife_with_groups_of_two_agrees_with_the_standard_error_of_a_mean():
    values = np.random.default_rng(0).standard_normal(2000)
    found = grouped_jackknife(lambda rows: values[rows].mean(), 2000, num_groups=1000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(2000), rel=0.05)


def test_the_jackknife_covers_a_biased_statistic_once_its_bias_is_taken_off():
    """95 % intervals of a variance divided by N, whose bias is -1 / N: 200 repetitions."""
    covered = 0
    for seed in range(200):
        values = np.random.default_rng(seed).standard_normal(60)
        found = grouped_jackknife(lambda rows: values[rows].var(), 60, num_groups=20)  # noqa: B023  (called at once)
        covered += found.low - found.bias <= 1.0 <= found.high - found.bias
    assert 0.85 < covered / 200 < 0.99


def test_intervals_of_nothing_are_refused():
    with pytest.raises(InputError, match="an interval needs a list of values"):
        mean_interval([])
    with pytest.raises(InputError, match="3 values can't be paired with 2"):
        difference_interval([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="7 pictures are too few for 4 groups"):
        grouped_jackknife(lambda rows: 0.0, 7, num_groups=4)
    assert grouped_jackknife(lambda rows: 0.0, 8, num_groups=4).high == 0


@pytest.mark.parametrize(("num", "low", "high"), [(5, None, None), (6, 0, 5), (9, 1, 7), (15, 3, 11)])
def test_the_interval_of_a_median_is_that_of_the_binomial(num, low, high):
    found = median_interval(np.random.default_rng(0).permutation(num).astype(float))
    assert (found.value, found.low, found.high) == ((num - 1) / 2, low, high)
