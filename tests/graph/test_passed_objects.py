"""Objects among the arguments reach the blocks as they are, at every call: no copy, no literal, nothing remembered."""

import dataclasses
import enum
import functools
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

import surgery
from surgery.spec.load import read_spec
from surgery.testing import build_tiny_model, tiny_call

SPEC = read_spec('surgery: v1\noperations: [{skip: "transformer_blocks[1]"}]\n')


@dataclasses.dataclass
class State:
    scale: float = 1.0


class Plain:
    scale = 1.0


class Word(enum.StrEnum):
    FAST = "fast"


class Number(enum.IntEnum):
    ONE = 1


class Name(str):
    pass


OBJECTS = [
    *(
        State(),
        Plain(),
        types.SimpleNamespace(scale=1.0),
        lambda: 1.0,
        functools.partial(max, 1),
        Word.FAST,
        Number.ONE,
    ),
    *(Name("x"), np.float32(1.0), np.float64(1.0), np.bool_(True), np.ones(2), Path("x"), torch.Generator(), {1, 2}),
    *(bytearray(b"x"), Plain, {(1, 2)}, {1: "a"}, [Plain()], {"inner": State()}),
]


class Seeing(AttnProcessor2_0):
    """Notes what it is given, and multiplies by `scale` where that has one."""

    def __init__(self, seen):
        self.seen = seen

    def __call__(self, attn, hidden_states, *args, state=None, **options):
        self.seen.append(state)
        return super().__call__(attn, hidden_states, *args, **options) * getattr(state, "scale", 1.0)


@pytest.fixture(scope="module")
def pair():
    """A variant and the edit by hand, and what the processors of the variant have seen."""
    seen = []
    variant = surgery.apply(build_tiny_model("pixart"), SPEC)
    by_hand = build_tiny_model("pixart")
    by_hand.transformer_blocks = torch.nn.ModuleList(
        block for index, block in enumerate(by_hand.transformer_blocks) if index != 1
    )
    variant.set_attn_processor(Seeing(seen))
    by_hand.set_attn_processor(Seeing([]))
    return variant, by_hand, seen


def run(model, state):
    with torch.no_grad():
        return model(**tiny_call(model), cross_attention_kwargs={"state": state}).sample


@pytest.mark.parametrize("state", OBJECTS, ids=lambda value: f"{type(value).__name__}")
def test_a_block_is_given_the_object_itself(pair, state):
    variant, by_hand, seen = pair
    seen.clear()
    assert torch.equal(run(variant, state), run(by_hand, state))
    if type(state) is dict and 1 in state:
        assert seen[-1] == state
    else:
        assert innermost(seen[-1]) is innermost(state)


def innermost(value):
    """The object itself, or the one in the list or dict that holds it: those are made again around it."""
    return value[0] if type(value) is list else value["inner"] if type(value) is dict else value


@pytest.mark.parametrize("make", [State, Plain, types.SimpleNamespace], ids=lambda made: made.__name__)
def test_what_an_object_holds_counts_at_every_call(pair, make):
    variant, by_hand, _ = pair
    state = make()
    found = []
    for state.scale in (1.0, 0.0, 2.0):
        found.append(run(variant, state))
        assert torch.equal(found[-1], run(by_hand, state))
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_what_a_block_writes_is_for_the_owner_of_the_object(pair, monkeypatch):
    variant, _, _ = pair
    written = set()
    monkeypatch.setattr(Seeing, "__call__", lambda self, attn, hidden, *args, state=None, **o: state.add(7) or hidden)
    run(variant, written)
    assert written == {7}
