"""What is chosen: the least by the definitions, checked against slow ones; and what can't be chosen."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from surgery.errors import InputError
from surgery.profiles import suggestion
from surgery.profiles.profile_file import read_profile
from surgery.profiles.suggestion import (
    choose_layers,
    ends_of,
    forbidden_text,
    layer_influence,
    number_to_remove,
    read_forbidden,
    span_distances,
)

STACK, OTHER = "transformer_blocks", "single_transformer_blocks"
TEXT, IMAGE = "encoder_hidden_states", "hidden_states"


@pytest.fixture
def profile(made):
    return made.make_profile([(STACK, 9)], streams=(TEXT, IMAGE), text_ends_early=True, seed=4)


@pytest.fixture
def flux(made):
    return made.make_profile([(STACK, 5), (OTHER, 8)], streams=(IMAGE,), seed=2)


def choose(profile, number, by, **options):
    stacks = options.pop("stacks", [STACK])
    return choose_layers(profile, number, by=by, stacks=stacks, **options)


def with_idle_layer(made, index, num_blocks=8):
    """States that one layer leaves as they are."""
    states = made.wandering_states(np.random.default_rng(0), num_blocks + 1)
    moves = np.diff(states, axis=1)
    moves[:, index] = 0
    states = np.concatenate([states[:, :1], states[:, :1] + moves.cumsum(1)], axis=1)
    profile = made.make_profile([(STACK, num_blocks)])
    profile.streams[STACK, IMAGE, "conditional"] = made.sums_of_states(states)
    return profile


@pytest.mark.parametrize("by", ["influence", "span", "greedy"])
def test_a_layer_that_does_nothing_goes_first(made, by):
    profile = with_idle_layer(made, 5)
    (layer,) = choose(profile, 1, by).layers
    assert (layer.index, layer.rank) == (5, 1) and layer.value == pytest.approx(0, abs=1e-6)


def test_the_layers_of_least_influence_are_chosen(profile):
    values = np.nanmean([np.append(profile.influence(STACK, TEXT), np.nan), profile.influence(STACK, IMAGE)], axis=0)
    assert np.allclose(layer_influence(profile, STACK, (TEXT, IMAGE)), values)
    choice = choose(profile, 4, "influence")
    order = sorted(range(1, 8), key=lambda index: values[index])
    assert [layer.index for layer in choice.layers] == order[:4]
    assert [layer.rank for layer in choice.layers] == [1, 2, 3, 4] and choice.num_candidates == 7
    assert choice.indices == {STACK: tuple(sorted(order[:4]))}
    assert [layer.value for layer in choice.layers] == pytest.approx(sorted(values[1:8])[:4])


def test_several_stacks_are_ranked_together(flux):
    values = {stack: flux.influence(stack, IMAGE) for stack in (STACK, OTHER)}
    allowed = [(values[STACK][i], STACK, i) for i in range(1, 4)] + [(values[OTHER][i], OTHER, i) for i in range(1, 7)]
    choice = choose(flux, 5, "influence", stacks=[STACK, OTHER])
    assert [(layer.value, layer.stack, layer.index) for layer in choice.layers] == sorted(allowed)[:5]


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_the_best_span_is_the_least_of_all(profile, number):
    distances = span_distances(profile, STACK, (IMAGE,))
    starts = [start for start in range(9 - number + 1) if start > 0 and start + number < 9]
    best = min(starts, key=lambda start: distances[start, start + number])
    choice = choose(profile, number, "span", stream=IMAGE)
    assert choice.indices == {STACK: tuple(range(best, best + number))}
    assert choice.num_candidates == len(starts)
    assert {layer.value for layer in choice.layers} == {distances[best, best + number]}
    anywhere = choose(profile, number, "span", stream=IMAGE, forbidden={})
    assert anywhere.layers[0].value == np.nanmin(np.diagonal(distances, number))


def test_greedy_takes_each_time_the_least_gap_among_layers_of_about_the_least_influence(profile, monkeypatch):
    """Within a tenth of the least that is left, or as much as is made of it here, so that gaps decide at all."""
    monkeypatch.setattr(suggestion, "ALIKE", 0.3)
    distances = span_distances(profile, STACK, (TEXT, IMAGE))
    influence = layer_influence(profile, STACK, (TEXT, IMAGE))
    gone: list[int] = []
    for _ in range(5):
        gaps = {}
        left = sorted(set(range(1, 8)) - set(gone))
        for index in [index for index in left if influence[index] <= 1.3 * min(influence[left])]:
            after = set(gone) | {index}
            start, end = next(
                (a, b)
                for a, b in itertools.combinations(range(10), 2)
                if a <= index < b and set(range(a, b)) <= after and a - 1 not in after and b not in after
            )
            gaps[index] = distances[start, end]
        gone.append(min(gaps, key=gaps.get))
        choice = choose(profile, len(gone), "greedy")
        assert [layer.index for layer in choice.layers] == gone
        assert choice.layers[-1].value == gaps[gone[-1]]
    assert [layer.rank for layer in choice.layers] == [1, 2, 3, 4, 5]


def test_greedy_is_never_worse_than_influence_on_the_bundled_pipeline():
    """Mean denoising errors of sets of 3, 4 and 6 of its 12 blocks were measured for all 2,510 sets of up to six."""
    shipped = read_profile(Path(__file__).parents[2] / "exports" / "demo" / "profile.safetensors")
    measured = {
        (2, 4, 6): 0.574,
        (3, 4, 6): 0.632,
        (2, 4, 6, 8): 0.741,
        (3, 4, 5, 6): 0.774,
        (2, 3, 4, 5, 6, 8): 0.953,
    }
    for number in (3, 4, 6):
        errors = [measured[choose(shipped, number, by).indices[STACK]] for by in ("greedy", "influence")]
        assert errors[0] <= errors[1]
    assert choose(shipped, 6, "greedy").indices == choose(shipped, 6, "influence").indices


def test_greedy_and_influence_differ_where_neighbours_undo_each_other(made):
    """Layers 3 and 4 move far and back: each has a great influence, both together none."""
    states = made.wandering_states(np.random.default_rng(0), 9)
    states[:, 5:] += states[:, 3:4] - states[:, 5:6]
    profile = made.make_profile([(STACK, 8)])
    states[:, 4] += 3
    profile.streams[STACK, IMAGE, "conditional"] = made.sums_of_states(states)
    assert choose(profile, 2, "span").indices == {STACK: (3, 4)}
    assert choose(profile, 2, "influence").indices != {STACK: (3, 4)}


@pytest.mark.parametrize("by", ["influence", "span", "greedy"])
def test_the_ends_are_left_alone_unless_others_are(made, by):
    profile = with_idle_layer(made, 0)
    assert choose(profile, 1, by).layers[0].index not in (0, 7)
    assert choose(profile, 1, by, forbidden={}).layers[0].index == 0
    assert choose(profile, 1, by, forbidden={STACK: frozenset({0})}).layers[0].index != 0


def test_the_last_block_of_a_stream_that_ends_early_counts_by_the_others(profile):
    assert choose(profile, 9, "influence", forbidden={}).num_candidates == 9
    assert choose(profile, 8, "influence", forbidden={}, stream=TEXT).num_candidates == 8
    assert np.isnan(span_distances(profile, STACK, (TEXT,))[0, 9])
    assert choose(profile, 8, "greedy", forbidden={}, stream=TEXT).indices == {STACK: tuple(range(8))}


@pytest.mark.parametrize(
    ("number", "by", "options", "message"),
    [
        (8, "influence", {}, r"8 layers can't be chosen: 7 may be \(left alone: transformer_blocks\[0, 8\]\)"),
        (8, "greedy", {}, r"8 layers can't be chosen: 7 may be"),
        (8, "span", {}, r"has no 8 neighbours that may be chosen; left alone: transformer_blocks\[0, 8\]"),
        (1, "influence", {"forbidden": {STACK: frozenset(range(9))}}, r"0 may be \(left alone: .*\[0:9\]\)"),
        (1, "span", {"forbidden": {STACK: frozenset(range(9))}}, "has no 1 neighbours"),
        (1, "greedy", {"forbidden": {STACK: frozenset(range(9))}}, "0 may be"),
        (0, "influence", {}, "no layer is to be chosen"),
        (10**9, "span", {}, "has no 1000000000 neighbours"),
        (1, "influence", {"stream": "audio"}, "no stream audio of transformer_blocks; it has encoder_hidden_states"),
        (1, "influence", {"stacks": ["blocks"]}, "no stack blocks; it has transformer_blocks"),
    ],
)
def test_what_can_not_be_chosen_is_told(profile, number, by, options, message):
    with pytest.raises(InputError, match=message):
        choose(profile, number, by, **options)


@pytest.mark.parametrize("by", ["span", "greedy"])
def test_spans_and_gaps_are_of_one_stack(flux, by):
    with pytest.raises(InputError, match=f"{by} takes the layers of one stack, and there are {STACK}, {OTHER}; give"):
        choose(flux, 1, by, stacks=[STACK, OTHER])


def test_a_share_to_keep_is_a_number_to_remove(profile):
    assert [number_to_remove(profile, [STACK], keep) for keep in (0.75, 2 / 3, 0.5, 0.01)] == [2, 3, 4, 8]
    for keep in (0, 1, 1.5, -1, float("nan")):
        with pytest.raises(InputError, match="is no share of layers to keep"):
            number_to_remove(profile, [STACK], keep)
    with pytest.raises(InputError, match=r"to keep 0.95 of 9 layers, none may go; keep at most 0.889"):
        number_to_remove(profile, [STACK], 0.95)


def test_what_is_left_alone_is_read_from_selectors(flux):
    both = [STACK, OTHER]
    assert read_forbidden([f"{STACK}[0, -1]", f"{OTHER}[:2]"], flux, both) == {STACK: {0, 4}, OTHER: {0, 1}}
    assert read_forbidden(["*[0]"], flux, both) == {STACK: {0}, OTHER: {0}}
    assert read_forbidden(["none"], flux, both) == {STACK: set(), OTHER: set()}
    assert forbidden_text(ends_of(flux, both)) == f"{STACK}[0, 4], {OTHER}[0, 7]"
    assert forbidden_text({STACK: frozenset()}) == "none"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blocks[0]", "the profile has no stack blocks; it has"),
        (f"{STACK}[9]", r"names no layers: transformer_blocks has layers 0 to 4"),
        (f"{STACK}[0].attn", "names no layers: .* write whole layers"),
        (STACK, "--forbid transformer_blocks: .* has no subscript"),
        ("]", r"--forbid \]: .* is no selector"),
    ],
)
def test_what_can_not_be_left_alone_is_told(flux, text, message):
    with pytest.raises(InputError, match=message):
        read_forbidden([text], flux, [STACK, OTHER])
