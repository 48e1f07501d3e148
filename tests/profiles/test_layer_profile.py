"""What a profile says of its sums: each kind of mean, overall and by timestep bin."""

import numpy as np
import pytest

from surgery.profiles.layer_profile import Profile, ProfiledStack, no_sums

STACK, STREAM = "blocks", "x"


@pytest.fixture
def profile():
    """Two bins of other sizes; every sum is of numbers that no other sum has."""
    sums = no_sums(2, 3)
    sums.samples[...], sums.tokens[...], sums.angles[...] = [1, 3], [10, 30], [5, 15]
    for number, name in enumerate(("cosine", "token_cosine", "angle"), 1):
        getattr(sums, name)[...] = number * np.arange(1, 19).reshape(2, 3, 3)
    sums.residual[...] = [[1, 2], [3, 4]]
    sums.mean_cosine[...], sums.trajectories[...] = np.arange(9).reshape(3, 3), 2
    stack = ProfiledStack(STACK, 2, (STREAM,))
    return Profile({}, (stack,), 2, {(STACK, STREAM, "conditional"): sums}, {})


def test_similarity_is_of_the_kind_and_of_the_bin_that_are_asked_for(profile):
    first, second = np.arange(1, 10).reshape(3, 3), np.arange(10, 19).reshape(3, 3)
    assert np.allclose(profile.similarity(STACK, STREAM), (first + second) / 4)
    assert np.allclose(profile.similarity(STACK, STREAM, kind="token"), 2 * (first + second) / 40)
    assert np.allclose(profile.similarity(STACK, STREAM, kind="means"), np.arange(9).reshape(3, 3) / 2)
    assert np.allclose(profile.similarity(STACK, STREAM, time_bin=1), second / 3)
    assert np.allclose(profile.similarity(STACK, STREAM, kind="token", time_bin=0), 2 * first / 10)


def test_distances_influence_and_residuals_are_means_of_their_own_counts(profile):
    first, second = 3 * np.arange(1, 10).reshape(3, 3), 3 * np.arange(10, 19).reshape(3, 3)
    assert np.allclose(profile.angular(STACK, STREAM), [np.diagonal(first, 1) / 5, np.diagonal(second, 1) / 15])
    assert np.allclose(profile.span_angular(STACK, STREAM), (first + second) / 20)
    assert np.allclose(profile.influence(STACK, STREAM), 1 - 2 * np.array([2 + 11, 6 + 15]) / 40)
    assert np.allclose(profile.residual_norm(STACK, STREAM), [0.1, 0.15])
