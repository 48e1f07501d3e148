"""KID against its definition and torch-fidelity's; its interval against repetition; CMMD against its definition."""

import numpy as np
import pytest
import torch

from surgery.errors import InputError
from surgery.metrics import kernel_distance as module
from surgery.metrics.feature_sets import Features, Origin
from surgery.metrics.intervals import grouped_jackknife
from surgery.metrics.kernel_distance import cmmd, kernel_distance, kernel_reference

ORIGIN = Origin("test", "0" * 64, "none")


def features(num, *, seed=0, shift=0.0, channels=8):
    values = np.random.default_rng(seed).standard_normal((num, channels)) + shift
    return Features(values.astype(np.float32), ORIGIN)


def slow_kid(x, y):
    """The definition, pair by pair."""
    kernel = lambda a, b: (float(a @ b) / len(a) + 1) ** 3  # noqa: E731
    x, y = x.values.astype(np.float64), y.values.astype(np.float64)
    own = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    return sum(own) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_it_is_the_definition(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    one, other = features(12), features(20, seed=1, shift=0.4)
    assert kernel_distance(one, other).value == pytest.approx(slow_kid(one, other), rel=1e-10)
    assert kernel_distance(one, kernel_reference(other)) == kernel_distance(one, other)


def test_it_is_torch_fidelitys_value_for_one_subset_of_all_pictures():
    from torch_fidelity.metric_kid import kid_features_to_metric

    one, other = features(40), features(40, seed=1, shift=0.2)
    theirs = kid_features_to_metric(
        *(torch.from_numpy(item.values).double() for item in (one, other)),
        kid_subsets=1, kid_subset_size=40, rng_seed=0, verbose=False,
    )  # fmt: skip
    assert kernel_distance(one, other).value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert theirs["kernel_inception_distance_std"] == 0  # the trap: a spread of nothing
    assert kernel_distance(one, other).high > kernel_distance(one, other).value


def test_it_is_unbiased():
    values = [kernel_distance(features(20, seed=2 * k), features(20, seed=2 * k + 1)).value for k in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    assert min(values) < 0


def test_the_interval_covers_the_true_value():
    """95 % intervals around the value of many pictures: 100 repetitions of 60 against 60."""
    truth = kernel_distance(features(3000, seed=10_000), features(3000, seed=10_001, shift=0.3)).value
    found = [kernel_distance(features(60, seed=2 * k), features(60, seed=2 * k + 1, shift=0.3)) for k in range(100)]
    assert 88 <= sum(item.low <= truth <= item.high for item in found) <= 100


def test_the_variance_is_the_jackknifes():
    one, other = features(9), features(11, seed=1, shift=0.5)
    without = lambda item, k: item.take([j for j in range(len(item)) if j != k])  # noqa: E731
    of_one = np.array([kernel_distance(without(one, k), other).value for k in range(9)])
    of_other = np.array([kernel_distance(one, without(other, k)).value for k in range(11)])
    expected = 8 * of_one.var() + 10 * of_other.var()
    found = kernel_distance(one, other)
    assert ((found.high - found.low) / 2 / 1.959964) ** 2 == pytest.approx(expected, rel=1e-6)


def test_the_order_of_pictures_does_not_matter():
    one, other = features(30), features(30, seed=1, shift=0.3)
    mixed = one.take(np.random.default_rng(0).permutation(30))
    assert kernel_distance(mixed, other).value == pytest.approx(kernel_distance(one, other).value, rel=1e-9)


def test_too_few_pictures_and_other_weights_are_refused():
    with pytest.raises(InputError, match="2 pictures are too few: at least 3"):
        kernel_distance(features(2), features(10))
    with pytest.raises(InputError, match="8 channels can't be compared with 4"):
        kernel_distance(features(5), kernel_reference(features(10, channels=4)))


def test_cmmd_is_the_definition_and_zero_for_a_set_and_itself():
    one, other = features(15), features(25, seed=1, shift=0.5)
    x, y = (item.values.astype(np.float64) for item in (one, other))
    x, y = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (x, y))
    kernel = lambda a, b: np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / 200)  # noqa: E731
    expected = 1000 * (kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean())
    found = cmmd(one, other)
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert found.low is None
    assert cmmd(one, one).value == pytest.approx(0, abs=1e-9)


def test_cmmds_interval_is_the_jackknife_over_groups():
    one, other = features(50), features(25, seed=1, shift=0.5)
    by_hand = grouped_jackknife(lambda rows: cmmd(one.take(rows), other).value, 50)
    found = cmmd(one, other)
    assert (found.value, found.low, found.high) == pytest.approx((by_hand.value, by_hand.low, by_hand.high), rel=1e-9)
