"""Precision is of the pictures, recall of the reference: not the other way round."""

import numpy as np
import pytest

from surgery.errors import InputError
from surgery.metrics.feature_sets import Features, Origin
from surgery.metrics.precision_recall import PrecisionRecall, precision_recall

ORIGIN = Origin("test", "0" * 64, "none")


def features(values):
    return Features(np.asarray(values, dtype=np.float32), ORIGIN)


def normal(num, *, seed=0, stretch=1.0):
    return features(np.random.default_rng(seed).standard_normal((num, 4)) * stretch)


def slow(pictures, reference, neighbours=3):
    def share(points, manifold):
        own = np.linalg.norm(manifold[:, None] - manifold[None], axis=2)
        radius = np.sort(own, axis=1)[:, neighbours]
        return np.mean((np.linalg.norm(points[:, None] - manifold[None], axis=2) <= radius).any(1))

    x, y = pictures.values.astype(np.float64), reference.values.astype(np.float64)
    return PrecisionRecall(share(x, y), share(y, x))


def test_it_is_the_definition():
    one, other = normal(40), normal(60, seed=1, stretch=1.5)
    found = precision_recall(one, other)
    assert (found.precision, found.recall) == pytest.approx((slow(one, other).precision, slow(one, other).recall))


def test_pictures_of_one_kind_have_precision_but_no_recall():
    one_kind, many = normal(60, stretch=0.2), normal(60, seed=1)
    found = precision_recall(one_kind, many)
    assert found.precision > 0.9
    assert found.recall < 0.3
    turned = precision_recall(many, one_kind)
    assert (turned.precision, turned.recall) == (found.recall, found.precision)


def test_a_set_and_itself_are_at_one():
    """In float32 the distance of equal features is not zero, and duplicates fall out of their own manifold."""
    large = normal(40, stretch=1e3)
    assert precision_recall(large, large) == PrecisionRecall(1.0, 1.0)


def test_no_more_pictures_than_neighbours_are_refused():
    with pytest.raises(InputError, match="3 pictures are too few: at least 4"):
        precision_recall(normal(3), normal(10))
    with pytest.raises(InputError, match="3 pictures are too few: at least 4"):
        precision_recall(normal(10), normal(3))
    assert precision_recall(normal(4), normal(4)).precision == 1
    with pytest.raises(InputError, match="at least 1 neighbour"):
        precision_recall(normal(10), normal(10), num_neighbours=0)
