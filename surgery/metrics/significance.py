"""Whether one number is shown to be larger than another: one-sided p-values, and their correction for many at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from surgery.errors import InputError
from surgery.metrics.intervals import Interval
from surgery.metrics.welch import independent_difference, one_sided_p_value

Array = NDArray[np.float64]


def p_of_pairs(larger: ArrayLike, smaller: ArrayLike) -> float | None:
    """Student's paired test of `larger` against `smaller`, item by item (N,): the p-value of "it is not larger".

    Where all differences are one number there is nothing to spread: 0 where it is not negative, else 1; so 0 says "no
    smaller" of values that are equal. A difference that is infinite counts as the largest that is not. None: one pair,
    or values that are no numbers, tell nothing.

    Raises:
        InputError: they do not pair.
    """
    from scipy.stats import t

    one, other = (np.asarray(values, dtype=np.float64) for values in (larger, smaller))
    if one.shape != other.shape or one.ndim != 1:
        raise InputError(f"values of shape {one.shape} can't be paired with {other.shape}")
    with np.errstate(invalid="ignore"):
        differences = np.where(one == other, 0.0, one - other)  # infinities that are equal differ by nothing
    num = len(differences)
    if num < 2 or np.isnan(differences).any() or {-np.inf, np.inf} <= set(differences):
        return None
    if np.all(differences == differences[0]):
        return float(differences[0] < 0)
    finite = differences[np.isfinite(differences)]
    if 0 < len(finite) < num:
        return p_of_pairs(differences.clip(finite.min(), finite.max()), np.zeros(num))
    return float(t.sf(differences.mean() / (differences.std(ddof=1) / np.sqrt(num)), num - 1))


def p_of_intervals(larger: Interval, smaller: Interval) -> float | None:
    """The same of two numbers by their intervals: Welch's test (`welch.independent_difference`).

    None: without an interval nothing is told.
    """
    difference = independent_difference(larger, smaller)
    return None if difference is None else one_sided_p_value(difference)


def adjust(p_values: Sequence[float]) -> Array:
    """Benjamini and Hochberg's adjusted p-values (1995): those up to q hold with a false discovery rate of q."""
    from scipy.stats import false_discovery_control

    found: Array = false_discovery_control(p_values, method="bh") if len(p_values) else np.zeros(0)
    return found
