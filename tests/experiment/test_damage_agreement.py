"""Does angular distance predict damage? Planted answers are found at the times at which they were planted."""

import numpy as np
import pytest
from evaluations_made import STACK, write_evaluation

from surgery.errors import InputError
from surgery.experiment.damage_agreement import angle_maps, answer, answers_by_time, compare_maps
from surgery.experiment.damage_map import read_damage
from surgery.metrics.intervals import Interval

TEXT, IMAGE = "encoder_hidden_states", "hidden_states"
NUM_LAYERS, NUM_BINS = 12, 4
RNG = np.random.default_rng(0)
ANGLES = RNG.random((NUM_BINS, NUM_LAYERS)) / 2


@pytest.fixture
def damage_of(tmp_path):
    """A function: a map (B, L) -> the damage of skips."""

    def make(cells):
        return read_damage(write_evaluation(tmp_path, {(STACK, "skip"): cells}, {STACK: cells.shape[1]}))

    return make


def profile_of(made, angles=ANGLES, **more):
    return made.profile_of_angles({IMAGE: angles, **more}, angles.shape[1], STACK)


def compare(damage, profile, stream=None):
    return compare_maps(damage, angle_maps(damage, profile, stream))


def test_damage_that_is_the_angle_is_predicted_at_all_times(damage_of, made):
    (found,) = compare(damage_of(2 * ANGLES), profile_of(made))
    everything = [*found.by_bin, found.all_times, found.all_cells]
    assert all((one.value, one.low, one.high) == pytest.approx((1, 1, 1)) for one in everything)
    assert (found.stack, found.what, found.stream) == (STACK, "skip", IMAGE)
    assert answers_by_time(found.by_bin) == [(range(0, 4), "yes")]


def test_the_answer_is_that_of_each_time(damage_of, made):
    """Equal, unrelated, unrelated, opposite."""
    cells = np.stack([ANGLES[0], RNG.permutation(ANGLES[1]), RNG.permutation(ANGLES[2]), 1 - ANGLES[3]])
    (found,) = compare(damage_of(cells), profile_of(made))
    assert answers_by_time(found.by_bin) == [
        (range(0, 1), "yes"),
        (range(1, 3), "not shown"),
        (range(3, 4), "the reverse"),
    ]
    assert all(abs(one.value) < 0.6 and one.low < 0 < one.high for one in found.by_bin[1:3])
    document = found.to_json()
    assert [one["predicts"] for one in document["by_bin"]] == ["yes", "not shown", "not shown", "the reverse"]
    assert document["by_bin"][0]["method"] == "bootstrap over layers" and document["all_times"]["num"] == NUM_LAYERS


def test_over_all_times_layers_are_ranked_by_their_means_and_cells_by_themselves(damage_of, made):
    """A trend over time that both have ranks cells alike, and says nothing of layers."""
    trend = np.arange(NUM_BINS)[:, None] / 8
    small = ANGLES / 100
    cells = trend + small[:, RNG.permutation(NUM_LAYERS)]
    (found,) = compare(damage_of(cells), profile_of(made, trend + small + 0.01))
    assert found.all_cells.value > 0.9 and answer(found.all_cells) == "yes"
    assert abs(found.all_times.value) < 0.6 and answer(found.all_times) == "not shown"


def test_layers_and_times_that_one_of_them_lacks_are_left_out(damage_of, made):
    """An empty bin of the profile, a layer that was not measured, and a text that the last layer does not return."""
    cells, angles = ANGLES.copy(), ANGLES.copy()
    cells[:, 5], angles[2] = np.nan, np.nan
    cells[2] = np.where(np.isnan(cells[2]), np.nan, 9 - cells[2])  # would turn the means around
    image, text = compare(damage_of(cells), profile_of(made, angles, **{TEXT: angles[:, :-1]}))
    assert (image.stream, text.stream) == (IMAGE, TEXT)
    for found, num in ((image, 11), (text, 10)):
        assert found.by_bin[2] is None
        assert [one.num for one in (*found.by_bin[:2], found.by_bin[3], found.all_times, found.all_cells)] == [num] * 5
        assert found.all_times.value == pytest.approx(1) and found.all_cells.value == pytest.approx(1)
    (alone,) = compare(damage_of(cells), profile_of(made, angles, **{TEXT: angles[:, :-1]}), TEXT)
    assert alone == text


def test_an_answer_takes_the_whole_interval():
    def found(low, high):
        return Interval(0.5, low, high, 12, "")

    assert [answer(found(*ends)) for ends in ((0.1, 0.9), (0.0, 0.9), (-0.1, 0.9), (-0.9, -0.1))] == [
        *("yes", "not shown", "not shown", "the reverse")
    ]
    assert answer(found(None, None)) == answer(None) == "not shown"


def test_a_profile_that_does_not_fit_is_refused(damage_of, made):
    damage = damage_of(ANGLES)
    other = "the profile is of another model: "
    refused = {
        r"the profile has 2 timestep bins and the evaluation 4; measure one of them again, with --bins 4 for the "
        r"profile or --bins 2 for the evaluation$": profile_of(made, ANGLES[:2]),
        rf"{other}it has 11 blocks of transformer_blocks, and this PixArtTransformer2DModel has 12; give a profile of "
        r"the model that was evaluated$": profile_of(made, ANGLES[:, :-1]),
        rf"{other}a DiTTransformer2DModel, and this is a PixArtTransformer2DModel; give": made.make_profile(
            num_bins=4, identity={"class_name": "DiTTransformer2DModel"}
        ),
        r"the profile has no stack transformer_blocks; it has blocks$": made.make_profile([("blocks", 12)]),
        r"nothing was counted in transformer_blocks/hidden_states of the profile; measure it over more samples$": (
            made.make_profile(empty_bins=range(4))
        ),
    }
    for message, profile in refused.items():
        with pytest.raises(InputError, match=message):
            angle_maps(damage, profile)
    with pytest.raises(InputError, match=r"the profile has no stream text; it has hidden_states$"):
        angle_maps(damage, profile_of(made), "text")
