"""How sure a number is: intervals of means, of paired differences, and of statistics that are no means.

The jackknife is used for Frechet distances rather than the bootstrap: a bootstrap sample repeats pictures, which looks
like fewer of them, and so inflates every distance that is biased by N.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from surgery.errors import InputError


@dataclass(frozen=True)
class Interval:
    """A value, and where it would lie in `level` of all repetitions with other prompts. `num` is what it was made of.

    `bias` is the jackknife's estimate of how far the value is too high, where there is one. Low and high are None where
    there is too little to say.
    """

    value: float
    low: float | None
    high: float | None
    num: int
    method: str
    level: float = 0.95
    bias: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {name: value for name, value in self.__dict__.items() if name != "bias" or value is not None}

    def times(self, factor: float) -> "Interval":
        """The same in other units; `factor` is positive."""
        low, high, bias = (None if number is None else factor * number for number in (self.low, self.high, self.bias))
        return replace(self, value=factor * self.value, low=low, high=high, bias=bias)


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean of independent values and Student's interval for it: mean +- t_(n-1) s / sqrt(n) (Student 1908).

    Raises:
        InputError: there is no value.
    """
    found = _flat(values)
    mean, num = float(found.mean()), len(found)
    method = "Student's t over prompts"
    if num == 1:
        return Interval(mean, None, None, 1, "of one prompt", level)
    if np.all(found == found[0]):  # exactly equal, infinities included: there is nothing to spread
        return Interval(float(found[0]), float(found[0]), float(found[0]), num, method, level)
    if not np.isfinite(found).all():
        return Interval(mean, None, None, num, method, level)
    half = _student(level, num - 1) * float(found.std(ddof=1)) / np.sqrt(num)
    return Interval(mean, mean - half, mean + half, num, method, level)


def difference_interval(variant: ArrayLike, baseline: ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean of variant - baseline, prompt by prompt, and Student's interval for it.

    What makes one prompt harder than another is in both, and falls out.

    Raises:
        InputError: they do not pair, or hold nothing.
    """
    one, other = _flat(variant), _flat(baseline)
    if len(one) != len(other):
        raise InputError(f"{len(one)} values can't be paired with {len(other)}")
    return mean_interval(one - other, level=level)


def median_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """The median of independent values, and the narrowest pair of them, each as far from its end, that holds it in
    `level` of all repetitions, whatever their distribution (David and Nagaraja 2003, eq. 7.1.2).

    No pair of fewer than six values does so at 0.95: then there are no ends.

    Raises:
        InputError: there is no value.
    """
    from scipy.stats import binom

    found = np.sort(_flat(values))
    num, median = len(found), float(np.median(found))
    left_out = int(binom.ppf((1 - level) / 2, num, 0.5))  # from each end; at most (1 - level) / 2 below it
    if left_out < 1:
        return Interval(median, None, None, num, "median of too few runs for an interval", level)
    low, high = float(found[left_out - 1]), float(found[num - left_out])
    return Interval(median, low, high, num, "order statistics of the runs", level)


def grouped_jackknife(
    statistic: Callable[[NDArray[np.intp]], float], num: int, *, num_groups: int = 20, level: float = 0.95
) -> Interval:
    """The statistic of all `num` prompts, with an interval from leaving out one group of them after the other.

    `statistic` is given the numbers of the prompts that stay; for a metric of pairs take these of both sides. Prompt k
    is of group k mod `num_groups`. With G groups and theta_(j) the statistic without group j:
    se^2 = (G - 1) / G sum_j (theta_(j) - mean)^2, bias = (G - 1) (mean - theta) (Quenouille 1956; Efron and Tibshirani
    1993, eqs. 11.4 and 11.5, with groups for single values); the interval is theta +- t_(G-1) se.

    Raises:
        InputError: there are fewer prompts than twice the groups.
    """
    kept = take_groups(num, num_groups)
    return jackknife_interval(statistic(np.arange(num)), [statistic(rows) for rows in kept], num=num, level=level)


def take_groups(num: int, num_groups: int) -> list[NDArray[np.intp]]:
    """What stays when one group of every `num_groups`-th is left out: an array of numbers a group.

    Raises:
        InputError: there are fewer than two groups, or fewer prompts than twice the groups.
    """
    if num_groups < 2 or num < 2 * num_groups:
        raise InputError(f"{num} pictures are too few for {num_groups} groups of two or more; take fewer groups")
    numbers = np.arange(num)
    return [numbers[numbers % num_groups != group] for group in range(num_groups)]


def jackknife_interval(whole: float, without: Sequence[float], *, num: int, level: float = 0.95) -> Interval:
    """From the statistic of all and those without each group; see `grouped_jackknife`."""
    left, num_groups = np.asarray(without, dtype=np.float64), len(without)
    error = np.sqrt((num_groups - 1) / num_groups * ((left - left.mean()) ** 2).sum())
    half = _student(level, num_groups - 1) * float(error)
    bias = (num_groups - 1) * (float(left.mean()) - whole)
    return Interval(whole, whole - half, whole + half, num, f"jackknife over {num_groups} groups", level, bias)


def normal_interval(value: float, variance: float, *, num: int, method: str, level: float = 0.95) -> Interval:
    """value +- z sqrt(variance), for estimators whose variance is known in closed form."""
    from scipy.stats import norm

    half = float(norm.ppf((1 + level) / 2)) * float(np.sqrt(max(variance, 0.0)))
    return Interval(value, value - half, value + half, num, method, level)


def _student(level: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, freedom))


def _flat(values: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found):
        raise InputError(f"an interval needs a list of values, not an array of shape {found.shape}")
    return found
