"""Kernel distances of two sets of features: KID, and CMMD for CLIP's. Unbiased where stated, all in float64.

KID is the squared maximum mean discrepancy with k(x, y) = (x.y / C + 1)^3 (Binkowski et al. 2018, arXiv 1801.01401), by
its unbiased estimator over all pairs (Gretton et al. 2012, eq. 3):

    1 / (m (m - 1)) sum_{i != j} k(x_i, x_j) + 1 / (n (n - 1)) sum_{i != j} k(y_i, y_j) - 2 / (m n) sum_ij k(x_i, y_j)

No subsets are drawn: their spread is no standard error, and a subset of all pictures has none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from surgery.metrics.feature_sets import Array, Features, Origin, check_same_origin, finite_rows
from surgery.metrics.intervals import Interval, jackknife_interval, normal_interval

Kernel = Callable[[Array, Array], Array]
BLOCK_ROWS = 1024
NUM_GROUPS = 20  # of pictures that are left out in turn
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0


@dataclass(frozen=True)
class KernelReference:
    """A reference with what of its own products KID needs: `sums` (n,), of each row's kernels with all others."""

    values: Array
    sums: Array
    origin: Origin


def kernel_reference(reference: Features) -> KernelReference:
    """The part of KID that is the same for every variant, computed once.

    Raises:
        InputError: there are fewer than two pictures, or values that are no finite numbers.
    """
    values = finite_rows(reference)
    return KernelReference(values, _sums_of_others(values, polynomial_kernel), reference.origin)


def kernel_distance(pictures: Features, reference: Features | KernelReference, *, level: float = 0.95) -> Interval:
    """KID (not times 1000), unbiased, so slightly below zero for sets alike; the interval is over both sets.

    The variance is the delete-one jackknife's of a statistic of two samples (Arvesen 1969), in closed form:
    (m - 1) / m sum_i (KID_{-i} - mean)^2 + (n - 1) / n sum_j (KID_{-j} - mean)^2. The sets must be independent: for
    pictures that pair with the reference's take `intervals.grouped_jackknife`.

    Raises:
        InputError: they were not made alike; there are fewer than three pictures, or values that are no finite numbers.
    """
    check_same_origin(pictures, Features(np.empty((0, _width(reference)), np.float32), reference.origin))
    x = finite_rows(pictures, at_least=3)
    known = kernel_reference(reference) if isinstance(reference, Features) else reference
    y = known.values
    own = _sums_of_others(x, polynomial_kernel)
    cross_x, cross_y = _cross_sums(x, y)
    m, n = len(x), len(y)
    value = own.sum() / (m * (m - 1)) + known.sums.sum() / (n * (n - 1)) - 2 * cross_x.sum() / (m * n)
    variance = _variance(own, cross_x, n) + (_variance(known.sums, cross_y, m) if n > 2 else 0.0)
    return normal_interval(float(value), variance, num=m, method="delete-one jackknife of both sets", level=level)


def cmmd(pictures: Features, reference: Features) -> Interval:
    """CMMD (Jayasumana et al. 2024, arXiv 2401.09603, eq. 3) of CLIP's image embeddings, times 1000.

    The Gaussian kernel's sigma is 10; embeddings are scaled to length 1 first. As in the authors' code the means take
    in the diagonals, so it is biased upward by N, and zero for a set and itself. The interval is a jackknife over
    groups of the pictures; there is none for fewer than twice `NUM_GROUPS`.

    Raises:
        InputError: as `kernel_distance`.
    """
    check_same_origin(pictures, reference)
    x, y = (_unit(finite_rows(item)) for item in (pictures, reference))
    num = len(x)
    groups = [x[start::NUM_GROUPS] for start in range(min(NUM_GROUPS, num))]
    own = np.array([[_sum_kernel(one, other) for other in groups] for one in groups])
    across = np.array([_sum_kernel(group, y) for group in groups])
    known = _sum_kernel(y, y) / len(y) ** 2

    def of(own_sum: float, across_sum: float, left: int) -> float:
        return CMMD_SCALE * float(own_sum / left**2 + known - 2 * across_sum / (left * len(y)))

    whole = of(own.sum(), across.sum(), num)
    if num < 2 * NUM_GROUPS:
        return Interval(whole, None, None, num, "one number over all pictures")
    without = [
        of(own.sum() - own[k].sum() - own[:, k].sum() + own[k, k], across.sum() - across[k], num - len(group))
        for k, group in enumerate(groups)
    ]
    return jackknife_interval(whole, without, num=num)


def polynomial_kernel(x: Array, y: Array) -> Array:
    """(m, C), (n, C) -> (m, n)."""
    found: Array = (x @ y.T / x.shape[1] + 1) ** 3
    return found


def _gaussian_kernel(x: Array, y: Array) -> Array:
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * (x @ y.T)
    found: Array = np.exp(-np.maximum(squares, 0) / (2 * CMMD_SIGMA**2))
    return found


def _variance(own: Array, cross: Array, num_other: int) -> float:
    """Of the statistic over one sample of m: from its rows' sums of kernels with each other, and with the other's n."""
    m = len(own)
    within = (own.sum() - 2 * own) / ((m - 1) * (m - 2))
    across = (cross.sum() - cross) / ((m - 1) * num_other)
    left = within - 2 * across
    return float((m - 1) / m * ((left - left.mean()) ** 2).sum())


def _sums_of_others(values: Array, kernel: Kernel) -> Array:
    """(m,): of each row's kernels with all other rows."""
    found = np.empty(len(values))
    for start in range(0, len(values), BLOCK_ROWS):
        block = kernel(values[start : start + BLOCK_ROWS], values)
        rows = np.arange(len(block))
        block[rows, start + rows] = 0
        found[start : start + len(block)] = block.sum(1)
    return found


def _cross_sums(x: Array, y: Array) -> tuple[Array, Array]:
    """(m,) and (n,): of each row's kernels with all rows of the other."""
    of_x, of_y = np.empty(len(x)), np.zeros(len(y))
    for start in range(0, len(x), BLOCK_ROWS):
        block = polynomial_kernel(x[start : start + BLOCK_ROWS], y)
        of_x[start : start + len(block)] = block.sum(1)
        of_y += block.sum(0)
    return of_x, of_y


def _sum_kernel(x: Array, y: Array) -> float:
    return sum(float(_gaussian_kernel(x[k : k + BLOCK_ROWS], y).sum()) for k in range(0, len(x), BLOCK_ROWS))


def _unit(values: Array) -> Array:
    length: Array = np.linalg.norm(values, axis=1, keepdims=True)
    found: Array = values / np.maximum(length, 1e-30)
    return found


def _width(reference: Features | KernelReference) -> int:
    return int(reference.values.shape[1])
