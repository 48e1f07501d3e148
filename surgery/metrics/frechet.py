"""The Frechet distance of two Gaussians fitted to features: FID with Inception's (Heusel et al. 2017).

    d^2 = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)        (Dowson and Landau 1982, eq. 4)

With S_1 = A' A (A the n centred rows of the smaller sample over sqrt(n - 1)), the eigenvalues of S_1 S_2 that are not
zero are those of A S_2 A', which is symmetric, positive semidefinite, and of n rows rather than C: no matrix root of
C x C is taken, and none of a matrix that is not symmetric. All in float64.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from surgery.metrics.feature_sets import Array, Features, Statistics, check_same_origin, finite_rows, statistics_of
from surgery.metrics.intervals import Interval, grouped_jackknife, jackknife_interval, take_groups


def frechet_distance(one: Features | Statistics, other: Features | Statistics) -> float:
    """The squared distance d^2, which is what FID is; never below zero but for rounding.

    Raises:
        InputError: they were not made with the same weights and resize protocol; there are fewer than two pictures, or
            values that are no finite numbers.
    """
    check_same_origin(one, other)
    first, second = _fewer_first(one, other)
    mean, root = _mean_and_root(first)
    target = second if isinstance(second, Statistics) else statistics_of(second)
    gram = root @ target.covariance @ root.T  # n x n
    return _distance(mean - target.mean, float(np.vdot(root, root)), float(np.trace(target.covariance)), gram)


def frechet_interval(
    pictures: Features, reference: Features | Statistics, *, num_groups: int = 20, level: float = 0.95
) -> Interval:
    """The distance with an interval, by the grouped jackknife over the pictures; the reference is held fixed.

    As `intervals.grouped_jackknife`, with the products of all rows made once.

    Raises:
        InputError: as `frechet_distance`, or there are fewer pictures than twice the groups.
    """
    check_same_origin(pictures, reference)
    target = reference if isinstance(reference, Statistics) else statistics_of(reference)
    kept = take_groups(len(pictures), num_groups)
    whole = frechet_distance(pictures, target)
    without = _distances_of_subsets(pictures, target, kept)
    return jackknife_interval(whole, without, num=len(pictures), level=level)


def paired_frechet_interval(pictures: Features, baseline: Features) -> Interval:
    """The distance of two sets that pair; leaving out a prompt leaves it out of both. Equal features are at 0.

    Raises:
        InputError: as `frechet_interval`.
    """
    if np.array_equal(pictures.values, baseline.values):
        return Interval(0.0, 0.0, 0.0, len(pictures), "equal features")
    return grouped_jackknife(lambda rows: frechet_distance(pictures.take(rows), baseline.take(rows)), len(pictures))


def _distances_of_subsets(pictures: Features, target: Statistics, kept: Sequence[NDArray[np.intp]]) -> list[float]:
    values = finite_rows(pictures)
    if len(values) > values.shape[1]:  # n x n would be larger than C x C
        return [frechet_distance(pictures.take(rows), target) for rows in kept]
    centred = values - values.mean(0)
    inner, products = centred @ centred.T, centred @ target.covariance @ centred.T
    trace = float(np.trace(target.covariance))
    found = []
    for rows in kept:
        square = np.ix_(rows, rows)
        scale = len(rows) - 1
        own = _centred_twice(inner[square]) / scale
        gram = _centred_twice(products[square]) / scale
        found.append(_distance(values[rows].mean(0) - target.mean, float(np.trace(own)), trace, gram))
    return found


def _centred_twice(products: Array) -> Array:
    """X M X' for rows X -> the same for rows with their mean taken off."""
    rows = products.mean(1, keepdims=True)
    result: Array = products - rows - rows.T + products.mean()
    return result


def _distance(step: Array, trace_one: float, trace_other: float, gram: Array) -> float:
    eigenvalues = np.linalg.eigvalsh((gram + gram.T) / 2)
    root_trace = float(np.sqrt(np.maximum(eigenvalues, 0)).sum())
    return float(step @ step) + trace_one + trace_other - 2 * root_trace


def _fewer_first(one: Features | Statistics, other: Features | Statistics) -> tuple[Features | Statistics, ...]:
    """Features before statistics, fewer before more: the distance is symmetric, the work is not."""
    sizes = [len(item) if isinstance(item, Features) else np.inf for item in (one, other)]
    return (one, other) if sizes[0] <= sizes[1] else (other, one)


def _mean_and_root(item: Features | Statistics) -> tuple[Array, Array]:
    """The mean, and a matrix A of at most C rows with A' A the covariance."""
    if isinstance(item, Statistics):
        eigenvalues, vectors = np.linalg.eigh(item.covariance)
        return item.mean, np.sqrt(np.maximum(eigenvalues, 0))[:, None] * vectors.T
    values = finite_rows(item)
    mean = values.mean(0)
    root = (values - mean) / np.sqrt(len(values) - 1)
    if len(root) > root.shape[1]:
        root = np.asarray(np.linalg.qr(root, mode="r"))
    return mean, root
