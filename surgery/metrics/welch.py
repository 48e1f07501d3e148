"""Differences of numbers of which only the intervals are left: with Welch's interval, and p-values of both kinds."""

import re
from collections.abc import Sequence

import numpy as np

from surgery.metrics.intervals import Interval

STUDENT, JACKKNIFE = re.compile(r"Student's t\b"), re.compile(r"jackknife over (\d+) groups")
WELCH = re.compile(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf) degrees of freedom")


def standard_error(interval: Interval) -> float | None:
    """Half of an interval over the quantile that it was made with; None where it tells nothing of it."""
    if interval.low is None or interval.high is None or not np.isfinite([interval.low, interval.high]).all():
        return None
    quantile = _quantile(interval.level, freedom_of(interval))
    return (interval.high - interval.low) / 2 / quantile if quantile > 0 else None  # NaN of one value


def freedom_of(interval: Interval) -> float:
    """The degrees of freedom of an interval, by how it was made; infinite of one with a variance in closed form."""
    if welch := WELCH.search(interval.method):
        return float(welch[1])
    if STUDENT.search(interval.method):
        return float(interval.num - 1)
    groups = JACKKNIFE.search(interval.method)
    return float(groups[1]) - 1 if groups else float("inf")


def independent_difference(one: Interval, other: Interval) -> Interval | None:
    """one - other with Welch's interval (Welch 1947), as if they were of other prompts; None where one has no ends.

    Of values that share their prompts it is too wide rather than too narrow, as what makes a prompt hard is in both.
    """
    errors = standard_error(one), standard_error(other)
    if errors[0] is None or errors[1] is None:
        return None
    squares = np.array([errors[0] ** 2, errors[1] ** 2])
    freedom = _welch_freedom(squares, [freedom_of(one), freedom_of(other)])
    value, half = one.value - other.value, _quantile(one.level, freedom) * float(np.sqrt(squares.sum()))
    method = f"Student's t, {freedom:.6g} degrees of freedom (Welch)"
    return Interval(value, value - half, value + half, min(one.num, other.num), method, one.level)


def p_value(difference: Interval) -> float | None:
    """Two-sided, of no difference; None where there is no interval. Exactly equal values have 1."""
    error = standard_error(difference)
    if error is None:
        return None
    if error == 0:
        return 1.0 if difference.value == 0 else 0.0
    from scipy.stats import t

    found = float(2 * t.sf(abs(difference.value) / error, freedom_of(difference)))
    return None if np.isnan(found) else found


def one_sided_p_value(difference: Interval) -> float | None:
    """Of "it is not above 0"; None where there is no interval. Without any error 0 where it is not negative, else 1."""
    error = standard_error(difference)
    if error is None or np.isnan(difference.value):
        return None
    if error == 0:
        return float(difference.value < 0)
    from scipy.stats import t

    return float(t.sf(difference.value / error, freedom_of(difference)))


def _welch_freedom(squares: np.ndarray, freedoms: Sequence[float]) -> float:
    below = sum(float(square) ** 2 / freedom for square, freedom in zip(squares, freedoms, strict=True))
    return float(squares.sum()) ** 2 / below if below else float("inf")


def _quantile(level: float, freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, freedom))
