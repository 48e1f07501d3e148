"""Tests of differences: as SciPy has them, from nothing but intervals."""

import numpy as np
import pytest
from scipy import stats

from surgery.metrics.intervals import Interval, difference_interval, jackknife_interval, mean_interval
from surgery.metrics.welch import freedom_of, independent_difference, p_value, standard_error

ONE, OTHER = np.random.default_rng(0).normal(0.4, 1.0, 12), np.random.default_rng(1).normal(0.0, 2.0, 20)


def test_a_paired_difference_has_the_p_value_of_the_paired_test():
    found = p_value(difference_interval(ONE, OTHER[:12]))
    assert found == pytest.approx(stats.ttest_rel(ONE, OTHER[:12]).pvalue)


def test_the_difference_of_two_means_is_that_of_welch():
    found = independent_difference(mean_interval(ONE), mean_interval(OTHER))
    expected = stats.ttest_ind(ONE, OTHER, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert p_value(found) == pytest.approx(expected.pvalue, rel=1e-4)  # six digits of the freedom are kept


@pytest.mark.parametrize(
    ("interval", "freedom", "error"),
    [
        (mean_interval(ONE), 11, ONE.std(ddof=1) / 12**0.5),
        (jackknife_interval(0.0, [1.0, -1.0], num=40), 1, 1.0),
        (Interval(0.0, -1.96, 1.96, 9, "U-statistic"), np.inf, 1.0),
    ],
)
def test_the_standard_error_is_what_the_interval_was_made_with(interval, freedom, error):
    assert freedom_of(interval) == freedom
    assert standard_error(interval) == pytest.approx(error, rel=1e-4)


def test_what_has_no_ends_is_not_tested_and_what_is_equal_is_no_difference():
    bare = Interval(1.0, None, None, 9, "one number over all pictures")
    assert p_value(bare) is None and independent_difference(bare, mean_interval(ONE)) is None
    assert p_value(mean_interval([np.inf, 1.0])) is None
    assert (p_value(mean_interval([0.0, 0.0])), p_value(mean_interval([1.0, 1.0]))) == (1.0, 0.0)
