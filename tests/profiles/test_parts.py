"""A part of a profile is the profile that measuring nothing else would have given."""

import numpy as np
import pytest

from surgery.errors import InputError
from surgery.profiles.layer_profile import Moments, Profile, ProfiledStack
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
            streams[STACK, TEXT, branch + tokens] = sums(10 * (number + 1) + position)
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
        first, *others = map(sums, seeds)
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


def test_without_padding_told_apart_text_is_all_and_padding_nothing(made):
    profile = made.make_profile(branches=("conditional", "unconditional"))
    assert same(only_part(profile, "text").sums(STACK, IMAGE), profile.sums(STACK, IMAGE))
    with pytest.raises(InputError, match=r"no part padding; it has conditional, unconditional$"):
        only_part(profile, "padding")
