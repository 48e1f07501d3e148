"""A part of a profile is the profile that measuring nothing else would have given."""

from dataclasses import replace

import numpy as np
import pytest

from surgery.errors import InputError
from surgery.profiles.layer_profile import Moments, Profile, ProfiledStack, no_sums
from surgery.profiles.parts import list_parts, only_part

STACK, OTHER = "transformer_blocks", "single_transformer_blocks"
TEXT, IMAGE = "encoder_hidden_states", "hidden_states"


@pytest.fixture
def sums(made):
    """Sums that are told from each other: one number a part."""

    def of(seed):
        rng = np.random.default_rng(seed)
        return made.sums_of_states(made.wandering_states(rng, 4, num_bins=2))

    return of


@pytest.fixture
def profile(sums):
    """Two branches; the text's padding is told apart, the picture has none. The second stack has a picture only."""
    streams = {
        (STACK, IMAGE, "conditional"): sums(0),
        (STACK, IMAGE, "unconditional"): sums(1),
        (OTHER, IMAGE, "conditional"): sums(2),
        (OTHER, IMAGE, "unconditional"): sums(3),
    }
    for number, branch in enumerate(("conditional", "unconditional")):
        for position, tokens in enumerate(("", ":text", ":padding")):
            found = sums(10 * (number + 1) + position)
            found.tokens[...] /= 1 if not tokens else 2  # half of them are padding
            streams[STACK, TEXT, branch + tokens] = found
    moments = {
        (f"{STACK}.0.ff", IMAGE, branch): Moments(2.0, np.full(3, value), np.ones(3))
        for branch, value in (("conditional", 1.0), ("unconditional", 3.0))
    }
    stacks = (ProfiledStack(STACK, 3, (IMAGE, TEXT)), ProfiledStack(OTHER, 3, (IMAGE,)))
    return Profile({"model": "m"}, stacks, 2, streams, moments)


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))


@pytest.mark.parametrize(
    ("part", "text", "image"),
    [
        ("conditional", (10,), (0,)),
        ("unconditional", (20,), (1,)),
        ("conditional:text", (11,), (0,)),
        ("unconditional:text", (21,), (1,)),
        ("text", (11, 21), (0, 1)),
        ("conditional:padding", (12,), None),
        ("padding", (12, 22), None),
    ],
)
def test_the_numbers_are_those_of_the_part(profile, sums, part, text, image):
    found = only_part(profile, part)

    def expected(seeds):
        keys = {10: "", 11: ":text", 12: ":padding"}
        first, *others = (
            sums(seed)
            if seed < 10
            else profile.streams[STACK, TEXT, ("conditional", "unconditional")[seed // 10 - 1] + keys[10 + seed % 10]]
            for seed in seeds
        )
        for other in others:
            first = first + other
        return first

    assert same(found.sums(STACK, TEXT), expected(text))
    if image is None:  # a picture has no padding
        assert [(stack.name, stack.streams) for stack in found.stacks] == [(STACK, (TEXT,))]
    else:
        assert same(found.sums(STACK, IMAGE), expected(image))
        assert found.stacks == profile.stacks
    assert found.recipe == {"model": "m", "part": part}


def test_outputs_of_components_are_those_of_the_branch(profile):
    place = (f"{STACK}.0.ff", IMAGE)
    assert only_part(profile, "unconditional:text").moments(*place).mean.tolist() == [3, 3, 3]
    assert only_part(profile, "text").moments(*place).mean.tolist() == [2, 2, 2]
    assert only_part(profile, "padding").components == {}  # they are measured without it


def test_all_that_is_listed_can_be_asked_for(profile):
    listed = list_parts(profile)
    branches = ["conditional", "unconditional"]
    assert listed[:4] == [*branches, "text", "padding"]
    assert set(listed[4:]) == {f"{branch}:{tokens}" for branch in branches for tokens in ("text", "padding")}
    for part in listed:
        only_part(profile, part)


@pytest.mark.parametrize("part", ["", "x", "conditional:x", "x:text", "conditional:", ":text", "text:text", "picture"])
def test_a_part_that_is_not_there_is_told(profile, part):
    with pytest.raises(InputError, match=f"no part {part}; it has conditional, unconditional, text, padding, cond"):
        only_part(profile, part)


@pytest.mark.parametrize("part", ["text", "padding", "conditional:text"])
def test_where_padding_is_not_told_apart_there_is_no_such_part(made, part):
    profile = made.make_profile(branches=("conditional", "unconditional"))
    with pytest.raises(InputError, match=rf"no part {part}; it has conditional, unconditional$"):
        only_part(profile, part)


def test_padding_that_was_never_there_is_no_part(profile):
    """As of prompts that fill their stream: what is no padding is all."""
    streams = dict(profile.streams)
    streams[STACK, TEXT, "conditional:text"] = streams[STACK, TEXT, "conditional"]
    streams[STACK, TEXT, "conditional:padding"] = no_sums(2, 4)
    full = replace(profile, streams=streams)
    assert "conditional:padding" not in list_parts(full) and "padding" in list_parts(full)
    assert same(only_part(full, "conditional:text").sums(STACK, TEXT), only_part(full, "conditional").sums(STACK, TEXT))


@pytest.mark.parametrize("part", ["text", "padding", "conditional:text"])
def test_forwards_of_which_padding_is_not_known_are_not_lost_silently(profile, part):
    key = (STACK, TEXT, "conditional")
    more = replace(profile, streams={**profile.streams, key: profile.streams[key] + profile.streams[key]})
    with pytest.raises(InputError, match=f"of {STACK}/{TEXT} it is known of 12 of 24 tokens whether they are padding"):
        only_part(more, part)
    only_part(more, "conditional")


def test_a_part_of_a_part_is_refused(profile):
    with pytest.raises(InputError, match="is of the part text already"):
        only_part(only_part(profile, "text"), "conditional")
