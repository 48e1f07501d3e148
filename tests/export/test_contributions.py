"""A profile -> contributions: the study's numbers, its steps one by one, and profiles that do not do."""

import re
from dataclasses import replace

import numpy as np
import pytest

from surgery.errors import InputError
from surgery.export.contributions import IMAGE_WEIGHT, TEXT_WEIGHT, Weighing, measure_contributions, read_weight
from surgery.export.factors import factors_of_shares


@pytest.fixture(scope="module")
def weighing(study):
    return Weighing(weights={study.IMAGE: IMAGE_WEIGHT, study.TEXT: TEXT_WEIGHT})


def two_stacks(study, image, other):
    """A profile of two stacks with one stream each."""
    first = study.profile_of({study.IMAGE: image}, image.shape[1])
    second = study.profile_of({study.IMAGE: other}, other.shape[1], stack="single_transformer_blocks")
    return replace(first, stacks=(*first.stacks, *second.stacks), streams={**first.streams, **second.streams})


def test_the_study_gives_all_published_factors(study, weighing):
    (found,) = measure_contributions(study.profile_of_the_study(), weighing)
    assert factors_of_shares(found.shares, 12, {0, 31, 35}) == study.FACTORS
    assert (min(found.shares), max(found.shares), found.num_measured) == (0, 1, 37)


def test_another_percentile_gives_other_factors(study, weighing):
    """The saboteur of the test above."""
    (found,) = measure_contributions(study.profile_of_the_study(), replace(weighing, clip_percentile=95))
    assert factors_of_shares(found.shares, 12, {0, 31, 35}) != study.FACTORS


def test_a_layer_after_the_end_of_a_stream_shares_the_last_number(study, weighing):
    (found,) = measure_contributions(study.profile_of_the_study(), weighing)
    assert len(found.shares) == 38 and found.shares[37] == found.shares[36]


def test_one_stream_that_does_not_end_early_measures_every_layer(study):
    (found,) = measure_contributions(study.profile_of_the_study(), Weighing(weights={study.IMAGE: 1.0}))
    assert found.num_measured == 38 and found.weights == ((study.IMAGE, 1.0),)


def test_without_weights_all_streams_count_alike(study):
    profile = study.profile_of_the_study()
    equal = Weighing(weights={study.TEXT: 5.0, study.IMAGE: 5.0})
    (found,), (expected,) = measure_contributions(profile, Weighing()), measure_contributions(profile, equal)
    assert found.shares == pytest.approx(expected.shares, abs=1e-12)


def test_shares_are_the_normalised_means(study):
    heatmap = np.array([[0.1, 0.2, 0.4], [0.3, 0.2, 0.4]])
    profile = study.profile_of({study.IMAGE: heatmap}, 3)
    (found,) = measure_contributions(profile, Weighing(clip_percentile=None))
    assert found.shares == pytest.approx((0, 0, 1))


def test_stacks_with_weights_that_add_up_otherwise_are_compared_as_means(study):
    """Jointly, a stack of two streams and one of a single stream with the same distances get the same shares."""
    image, other = np.array([[0.1, 0.2, 0.4]]), np.array([[0.1, 0.4, 0.2]])
    first = study.profile_of({study.IMAGE: image, study.TEXT: image}, 3)
    second = study.profile_of({study.IMAGE: other}, 3, stack="single_transformer_blocks")
    profile = replace(first, stacks=(*first.stacks, *second.stacks), streams={**first.streams, **second.streams})
    weights = {study.IMAGE: 0.5, study.TEXT: 2.0}
    found = measure_contributions(profile, Weighing(weights=weights, clip_percentile=None, normalization="jointly"))
    assert [part.shares for part in found] == [pytest.approx((0, 1 / 3, 1)), pytest.approx((0, 1, 1 / 3))]


def test_stacks_are_normalised_apart_or_jointly(study):
    profile = two_stacks(study, np.array([[0.1, 0.2]]), np.array([[0.2, 0.5]]))
    apart = measure_contributions(profile, Weighing(clip_percentile=None))
    jointly = measure_contributions(profile, Weighing(clip_percentile=None, normalization="jointly"))
    assert [part.shares for part in apart] == [(0, 1), (0, 1)]
    assert [part.shares for part in jointly] == [pytest.approx((0, 0.25)), pytest.approx((0.25, 1))]


def test_one_stack_of_several_can_be_chosen(study):
    profile = two_stacks(study, np.array([[0.1, 0.2]]), np.array([[0.2, 0.5]]))
    found = measure_contributions(profile, Weighing(), ["single_transformer_blocks"])
    assert [part.stack for part in found] == ["single_transformer_blocks"]


def test_empty_bins_are_refused_or_left_out(study):
    heatmap = np.array([[0.1, 0.2], [np.nan, np.nan], [0.1, 0.4], [np.nan, np.nan]])
    profile = study.profile_of({study.IMAGE: heatmap}, 2)
    message = "the timestep bins 1, 3 (of 4) have no sample of transformer_blocks; profile more steps or prompts"
    with pytest.raises(InputError, match=re.escape(message)):
        measure_contributions(profile, Weighing())
    (found,) = measure_contributions(profile, Weighing(ignore_empty_bins=True))
    assert found.shares == (0, 1)


def test_a_stream_without_any_sample_is_refused(study):
    profile = study.profile_of({study.IMAGE: np.full((2, 2), np.nan)}, 2)
    with pytest.raises(InputError, match="has no sample of the stream hidden_states of transformer_blocks"):
        measure_contributions(profile, Weighing(ignore_empty_bins=True))


def test_a_distance_that_is_no_number_is_named(study):
    heatmap = np.full((3, 2), 0.1)
    heatmap[2, 1] = np.nan
    profile = study.profile_of({study.IMAGE: heatmap}, 2)
    with pytest.raises(
        InputError, match=re.escape("transformer_blocks[1] (hidden_states) in timestep bin 2 is no fin")
    ):
        measure_contributions(profile, Weighing())


def test_a_profile_of_fewer_layers_than_blocks_is_refused(study):
    profile = study.profile_of({study.IMAGE: np.full((2, 3), 0.1)}, 5)
    with pytest.raises(InputError, match="has 3 distances of the stream hidden_states for the 5 blocks of transformer"):
        measure_contributions(profile, Weighing())


def test_layers_that_can_not_be_told_apart_are_refused(study):
    profile = study.profile_of({study.IMAGE: np.full((2, 3), 0.25)}, 3)
    with pytest.raises(InputError, match=r"all 3 measured layers of transformer_blocks contribute 0\.25; nothing"):
        measure_contributions(profile, Weighing())


def test_a_missing_stream_is_named_with_those_that_exist(study):
    message = 'there is no stream "encoder_hidden_state" in the profile; there are encoder_hidden_states, hidden_states'
    with pytest.raises(InputError, match=re.escape(message)):
        measure_contributions(study.profile_of_the_study(), Weighing(weights={"encoder_hidden_state": 1.0}))


def test_a_stack_of_which_nothing_counts_is_refused(study):
    with pytest.raises(InputError, match="no stream of transformer_blocks has a weight above 0"):
        measure_contributions(study.profile_of_the_study(), Weighing(weights={study.IMAGE: 0.0}))


@pytest.mark.parametrize("percentile", [0, 101, float("nan")])
def test_a_percentile_that_is_none_is_refused(study, percentile):
    with pytest.raises(InputError, match="can't be clipped at percentile"):
        measure_contributions(study.profile_of_the_study(), Weighing(clip_percentile=percentile))


@pytest.mark.parametrize(("text", "weight"), [("a=2/3", 2 / 3), ("a.b = 0.5", 0.5), ("a=1e-3", 1e-3), ("a=0", 0)])
def test_weights_are_fractions_or_decimals(text, weight):
    assert read_weight(text) == (text.split("=")[0].strip(), weight)


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=-1", "a=1/0", "a=inf", "a=nan", "a=x"])
def test_what_is_no_weight_is_refused(text):
    with pytest.raises(InputError, match="is no weight of a stream; write STREAM=NUMBER"):
        read_weight(text)
