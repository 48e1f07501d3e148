"""The Frechet distance against slow oracles, closed forms and torch-fidelity; and its jackknife."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from surgery.errors import InputError
from surgery.metrics.feature_sets import Features, Origin, Statistics, statistics_of
from surgery.metrics.frechet import frechet_distance, frechet_interval
from surgery.metrics.intervals import grouped_jackknife

ORIGIN = Origin("test", "0" * 64, "none")
AGREES = 1e-6  # relative, as the definition says: float64 on both sides, the rest is the oracle's own rounding


def features(num, channels=24, *, seed=0, shift=0.0, stretch=1.0, origin=ORIGIN):
    """Correlated features with a spectrum that falls, as those of pictures."""
    mix = np.random.default_rng(7).standard_normal((channels, channels)) / np.arange(1, channels + 1)
    values = np.random.default_rng(seed).standard_normal((num, channels)) @ mix * stretch + shift
    return Features(values.astype(np.float32), origin)


def slow_distance(one, other):
    """The textbook's formula with SciPy's matrix root."""
    a, b = (statistics_of(item) if isinstance(item, Features) else item for item in (one, other))
    root = sqrtm(a.covariance @ b.covariance)
    step = a.mean - b.mean
    return float(step @ step + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(root).real)


def precise_distance(one, other):
    """The root's trace as the sum of the singular values of A B': no eigenvalue is squared, zeros stay zeros."""
    a, b = (item.values.astype(np.float64) for item in (one, other))
    roots = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    singular = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False)
    step = a.mean(0) - b.mean(0)
    return float(step @ step + sum((root**2).sum() for root in roots) - 2 * singular.sum())


@pytest.mark.parametrize(("num", "num_other"), [(100, 300), (300, 100), (25, 25), (1000, 30)])
def test_it_is_the_slow_formula_where_covariances_have_full_rank(num, num_other):
    one, other = features(num, shift=0.3), features(num_other, seed=1, stretch=1.4)
    slow = slow_distance(one, other)
    for a in (one, statistics_of(one)):
        for b in (other, statistics_of(other)):
            assert frechet_distance(a, b) == pytest.approx(slow, rel=AGREES)


@given(num=st.integers(2, 60), num_other=st.integers(2, 60), shift=st.floats(0, 3), stretch=st.floats(0.1, 5))
def test_it_is_the_precise_formula_for_any_numbers_of_pictures(num, num_other, shift, stretch):
    one, other = features(num, shift=shift), features(num_other, seed=1, stretch=stretch)
    assert frechet_distance(one, other) == pytest.approx(precise_distance(one, other), rel=AGREES, abs=1e-6)


def test_two_gaussians_with_a_common_basis_have_the_closed_form():
    """|m1 - m2|^2 + sum_i (s1_i - s2_i)^2 where the covariances commute."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    scales = np.array([[1, 2, 3, 0.5, 0, 4], [2, 2, 1, 0.1, 1, 0]], dtype=np.float64)
    means = np.random.default_rng(1).standard_normal((2, 6))
    one, other = (Statistics(m, basis * s**2 @ basis.T, None, ORIGIN) for m, s in zip(means, scales, strict=True))
    expected = ((means[0] - means[1]) ** 2).sum() + ((scales[0] - scales[1]) ** 2).sum()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=AGREES)


@pytest.mark.parametrize("num", [2, 10, 24, 25, 400])
def test_a_set_is_at_zero_from_itself(num):
    one = features(num)
    assert frechet_distance(one, one) == pytest.approx(0, abs=AGREES)
    assert frechet_distance(one, statistics_of(one)) == pytest.approx(0, abs=AGREES)


def test_it_is_symmetric_and_the_order_of_pictures_does_not_matter():
    one, other = features(40), features(60, seed=1, shift=0.2)
    mixed = one.take(np.random.default_rng(0).permutation(40))
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-9)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(mixed, other), rel=1e-9)


def test_it_is_torch_fidelitys_value_on_the_same_features():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    one, other = features(200, shift=0.1), features(300, seed=1)
    theirs = [fid_features_to_statistics(torch.from_numpy(item.values).double()) for item in (one, other)]
    expected = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(one, other) == pytest.approx(expected, rel=AGREES)


def test_fewer_pictures_than_channels_are_measured_exactly():
    one, other = features(40, 200), features(500, 200, seed=1, shift=0.5)
    assert frechet_distance(one, statistics_of(other)) == pytest.approx(precise_distance(one, other), rel=AGREES)
    # the textbook's root of a product of lower rank is off by more: each eigenvalue that should be 0 adds its rounding
    assert frechet_distance(one, statistics_of(other)) == pytest.approx(slow_distance(one, other), rel=1e-5)


@pytest.mark.parametrize("num", [20, 80], ids=["fewer pictures than channels", "more"])
def test_the_interval_is_the_grouped_jackknife_of_the_distance(num):
    one, other = features(num, shift=0.2), statistics_of(features(200, seed=1))
    fast = frechet_interval(one, other, num_groups=5)
    slow = grouped_jackknife(lambda rows: frechet_distance(one.take(rows), other), num, num_groups=5)
    for name in ("value", "low", "high", "bias"):
        assert getattr(fast, name) == pytest.approx(getattr(slow, name), rel=1e-6, abs=1e-9)
    assert (fast.num, fast.method) == (num, "jackknife over 5 groups")


def test_the_jackknife_sees_the_bias_of_few_pictures():
    reference = statistics_of(features(4000, seed=1))
    found = frechet_interval(features(200), reference)
    assert 0 < found.value < 1.5 * found.bias  # the true distance is 0: all of it is bias
    assert found.value - found.bias == pytest.approx(0, abs=0.3 * found.value)


def test_features_of_other_weights_or_another_resize_are_refused():
    one = features(10)
    with pytest.raises(InputError, match=r"test \(000000000000\) can't be compared with ones of test \(111.*weights"):
        frechet_distance(one, features(10, origin=Origin("test", "1" * 64, "none")))
    with pytest.raises(InputError, match=r"resized by \(none\) can't be compared with ones by \(bicubic\)"):
        frechet_distance(one, features(10, origin=Origin("test", "0" * 64, "bicubic")))
    with pytest.raises(InputError, match="24 channels can't be compared with 12"):
        frechet_distance(one, features(10, 12))
    assert frechet_distance(one, features(10, seed=1, origin=Origin())) > 0  # statistics of others do not say


def test_too_few_pictures_and_values_that_are_no_numbers_are_refused():
    broken = features(5)
    broken.values[3, 2] = np.nan
    with pytest.raises(InputError, match="1 pictures are too few: at least 2"):
        frechet_distance(features(1), features(10))
    with pytest.raises(InputError, match="features of 1 pictures are no finite numbers, the first is number 3"):
        frechet_distance(broken, features(10))
