"""Profiles as files and their sums: read back as written, joined in any order, and refused where they are unsound."""

import itertools
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from surgery.errors import InputError
from surgery.profiles.layer_profile import Moments, Profile, ProfiledStack, StreamSums
from surgery.profiles.means import read_means
from surgery.profiles.profile_file import ARRAYS, KEY, merge_profiles, read_profile, write_profile

BINS, STATES = 4, 5
STACK, STREAMS = "blocks", ("hidden_states", "encoder_hidden_states")


def made(seed, *, samples=None, **recipe):
    rng = np.random.default_rng(seed)
    streams = {}
    for stream, num_states in zip(STREAMS, (STATES, STATES - 1), strict=True):
        for part in ("unconditional", "conditional", "conditional:text"):
            shapes = [(BINS,), (BINS,), *[(BINS, num_states, num_states)] * 3, (BINS,), (BINS, num_states - 1)]
            arrays = [rng.random(shape) + 0.1 for shape in [*shapes, (num_states, num_states), ()]]
            streams[STACK, stream, part] = StreamSums(*(np.asarray(array) for array in arrays))
    components = {
        ("blocks.0.attn", stream, branch): Moments(float(rng.integers(1, 9)), rng.normal(5, 1, 6), rng.random(6))
        for stream in STREAMS
        for branch in ("unconditional", "conditional")
    }
    recipe = {"model": "m", "mode": "trajectories", "samples": samples or [f"{seed}:a", f"{seed}:b"], **recipe}
    return Profile(recipe, (ProfiledStack(STACK, STATES - 1, STREAMS),), BINS, streams, components)


def same(one, other, tolerance=0.0):
    assert one.stacks == other.stacks and one.num_bins == other.num_bins and one.recipe == other.recipe
    assert one.streams.keys() == other.streams.keys() and one.components.keys() == other.components.keys()
    pairs = [
        (getattr(sums, name), getattr(other.streams[key], name)) for key, sums in one.streams.items() for name in ARRAYS
    ]
    for key, moments in one.components.items():
        second = other.components[key]
        pairs += [(moments.count, second.count), (moments.mean, second.mean), (moments.squares, second.squares)]
    for ours, theirs in pairs:
        assert np.shape(ours) == np.shape(theirs)
        assert np.allclose(ours, theirs, rtol=tolerance, atol=0)


def test_what_is_written_is_read_back_to_the_bit(tmp_path):
    profile = made(0)
    write_profile(profile, tmp_path / "p.safetensors")
    same(read_profile(tmp_path / "p.safetensors"), profile)
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def test_joined_in_any_order_and_grouping_they_are_the_same():
    profiles = [made(seed) for seed in range(4)]
    joined = merge_profiles(profiles)
    for order in itertools.permutations(profiles):
        same(merge_profiles(order), joined, 1e-12)
        same(merge_profiles([merge_profiles(order[:2]), merge_profiles(order[2:])]), joined, 1e-12)
        same(merge_profiles([order[0], merge_profiles(order[1:])]), joined, 1e-12)


def test_a_joined_profile_has_the_means_of_all_samples():
    one, other = made(0), made(1)
    joined = merge_profiles([one, other])
    key = ("blocks.0.attn", "hidden_states")
    counts = [p.moments(*key).count for p in (one, other)]
    expected = sum(p.moments(*key).mean * n for p, n in zip((one, other), counts, strict=True)) / sum(counts)
    assert np.allclose(joined.moments(*key).mean, expected, rtol=1e-13)
    samples = [p.sums(STACK, "hidden_states").samples for p in (one, other)]
    angles = [p.sums(STACK, "hidden_states").angle for p in (one, other)]
    angle_counts = [p.sums(STACK, "hidden_states").angles for p in (one, other)]
    assert np.allclose(joined.sums(STACK, "hidden_states").samples, sum(samples))
    assert np.allclose(
        joined.angular(STACK, "hidden_states"),
        np.diagonal(sum(angles) / sum(angle_counts)[:, None, None], 1, 1, 2),
    )


def test_its_means_are_what_replace_mean_reads(tmp_path):
    profile = made(0)
    write_profile(profile, tmp_path / "p.safetensors")
    means = read_means(tmp_path / "p.safetensors")
    assert set(means.vectors) == {"blocks.0.attn"} and set(means.vectors["blocks.0.attn"]) == set(STREAMS)
    expected = profile.moments("blocks.0.attn", "hidden_states").mean
    assert np.allclose(means.vectors["blocks.0.attn"]["hidden_states"], expected, rtol=1e-6)


def test_branches_add_up_and_parts_of_tokens_are_not_counted_twice():
    profile = made(0)
    both = profile.sums(STACK, "hidden_states")
    expected = profile.sums(STACK, "hidden_states", "unconditional") + profile.sums(
        STACK, "hidden_states", "conditional"
    )
    assert np.array_equal(both.tokens, expected.tokens)
    assert profile.similarity(STACK, "hidden_states", time_bin=2).shape == (STATES, STATES)


@pytest.mark.parametrize(
    ("stack", "stream", "part", "message"),
    [
        ("layers", "hidden_states", None, "the profile has no stack layers; it has blocks"),
        ("blocks", "text", None, "no stream text of blocks; it has hidden_states, encoder_hidden_states"),
        ("blocks", "hidden_states", "conditional:padding", "no part conditional:padding"),
    ],
)
def test_what_was_not_measured_is_said(stack, stream, part, message):
    with pytest.raises(InputError, match=message):
        made(0).sums(stack, stream, part)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: made(1, identity={"weights": "b"}), "made differently: identity is None in one and"),
        (lambda: made(1, call={"steps": 3}), "made differently: call"),
        (lambda: made(1, mode="noised pictures"), "made differently: mode"),
        (lambda: made(1, samples=["0:a"]), "1 samples are in two of the profiles, the first is '0:a'"),
        (lambda: Profile(made(1).recipe, (), BINS, {}, {}), "of different models, or have different bins"),
    ],
)
def test_profiles_that_do_not_belong_together_are_not_joined(other, message):
    with pytest.raises(InputError, match=message):
        merge_profiles([made(0), other()])


def damage(path, change):
    tensors = load_file(path)
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])["__metadata__"]
    change(tensors, header)
    save_file(tensors, path, metadata=header)


def set_nan(tensors, _header):
    tensors["stream/blocks/hidden_states/conditional/angle"][0, 0, 1] = np.nan


def drop_stream(tensors, _header):
    for name in [name for name in tensors if "/encoder_hidden_states/" in name]:
        del tensors[name]


def drop_array(tensors, _header):
    del tensors["stream/blocks/hidden_states/conditional/angle"]


def reshape(tensors, _header):
    tensors["stream/blocks/hidden_states/conditional/angle"] = np.zeros((BINS, 3, 3))


def other_format(_tensors, header):
    header[KEY] = header[KEY].replace('"format": 1', '"format": 2')


def no_json(_tensors, header):
    header[KEY] = "{"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_nan, "is damaged: .* has values that are no finite numbers"),
        (drop_stream, "is damaged: .*the stream encoder_hidden_states of blocks is missing"),
        (drop_array, "is damaged: KeyError: .*conditional/angle"),
        (reshape, r"is damaged: .*angle has shape \(4, 3, 3\), not \(4, 5, 5\)"),
        (other_format, "is damaged: .*its format is 2, and this version reads 1"),
        (no_json, "can.t be read: Expecting property name"),
    ],
)
def test_damaged_profiles_are_refused(tmp_path, change, message):
    path = tmp_path / "p.safetensors"
    write_profile(made(0), path)
    damage(path, change)
    with pytest.raises(InputError, match=message):
        read_profile(path)


def test_a_truncated_file_and_a_file_that_is_none_are_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    write_profile(made(0), path)
    content = path.read_bytes()
    for size in (0, 5, 100, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match="can't be read"):
            read_profile(path)
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(InputError, match="is no profile: `surgery profile MODEL"):
        read_profile(path)
    with pytest.raises(InputError, match="can't be read"):
        read_profile(tmp_path / "absent.safetensors")
