"""A step is what a forward does for a block, however that is spelled: toys against their edits by hand."""

import itertools
import re
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from surgery.errors import RefusedError

WIDTH = 4
GENERATOR = torch.Generator().manual_seed(0)
X, TEXT = torch.randn(2, 3, WIDTH, generator=GENERATOR), torch.randn(2, 5, WIDTH, generator=GENERATOR)
OWN = torch.randn(6, 2, 3, WIDTH, generator=GENERATOR)

# What may be done to a stream x with what is a block's own, a. The first spelling is the one that is run by hand.
SUM = (
    lambda x, a: x + a,
    lambda x, a: a + x,
    torch.add,
    lambda x, a: torch.add(a, x),
    lambda x, a: torch.add(input=x, other=a),
    lambda x, a: torch.add(other=x, input=a),
    lambda x, a: torch.add(a, other=x),
    lambda x, a: x.add(a),
    lambda x, a: a.add(other=x),
)
PRODUCT = (
    lambda x, a: x * a,
    lambda x, a: a * x,
    lambda x, a: torch.mul(input=a, other=x),
    lambda x, a: torch.multiply(a, x),
    lambda x, a: a.mul(x),
)
DIFFERENCE = (
    lambda x, a: x - a,
    lambda x, a: torch.sub(other=a, input=x),
    lambda x, a: x.subtract(a),
    lambda x, a: x.sub(other=a),
)
OPERATIONS = {
    "sum": SUM,
    "product": PRODUCT,
    "difference": DIFFERENCE,
    "scaled": (lambda x, _: x * 0.5, lambda x, _: 0.5 * x, lambda x, _: torch.mul(input=x, other=0.5)),
    "shift and scale": tuple(
        lambda x, a, add=add, mul=mul: mul(add(x, a), a) for add, mul in itertools.product(SUM[:5], PRODUCT[:3])
    ),
    "gated": tuple(lambda x, a, add=add: add(x, torch.tanh(x) * a) for add in SUM),
}
# The same where the spelling has to be that of all blocks: a stream in any of the arguments, by position or name.
UNIFORM_OPERATIONS = {
    "lerp": (
        lambda x, a: torch.lerp(x, a, 0.3),
        lambda x, a: torch.lerp(weight=0.3, end=a, input=x),
        lambda x, a: x.lerp(a, weight=0.3),
    ),
    "lerp to x": (lambda x, a: torch.lerp(a, x, 0.3), lambda x, a: torch.lerp(end=x, input=a, weight=0.3)),
    "addcmul": (
        lambda x, a: torch.addcmul(x, a, a, value=2),
        lambda x, a: torch.addcmul(value=2, tensor2=a, tensor1=a, input=x),
    ),
    "addcmul by x": (
        lambda x, a: torch.addcmul(a, x, a),
        lambda x, a: torch.addcmul(a, a, x),
        lambda x, a: torch.addcmul(tensor2=x, tensor1=a, input=a),
    ),
    "where": (lambda x, a: torch.where(a > 0, x, a), lambda x, a: torch.where(a > 0, other=a, input=x)),
    "alpha": (lambda x, a: torch.add(x, a, alpha=2), lambda x, a: torch.add(other=a, alpha=2, input=x)),
    "alpha of x": (lambda x, a: torch.add(a, x, alpha=2), lambda x, a: a.add(alpha=2, other=x)),
}
PLACES = ("after", "after some", "before", "between")
LAYERS = {
    "all": range,
    "first skipped": lambda n: range(1, n),
    "middle skipped": lambda n: [i for i in range(n) if i != n // 2],
    "last skipped": lambda n: range(n - 1),
    "reversed": lambda n: range(n - 1, -1, -1),
    "first repeated": lambda n: [0, *range(n)],
    "last repeated": lambda n: [*range(n), n - 1],
    "none": lambda _: [],
}


class Block(nn.Module):
    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator) / 2)

    def forward(self, x):
        return x + torch.tanh(x @ self.weight)


class JointBlock(Block):
    def forward(self, x, text):
        mixed = torch.tanh(torch.cat([text, x], dim=1) @ self.weight)
        return text + mixed[:, : text.shape[1]], x + mixed[:, text.shape[1] :]


@dataclass(frozen=True)
class Recipe:
    """What a toy does around its blocks: `spellings[i]` is how block i's operation is written."""

    place: str
    operation: tuple
    spellings: tuple[int, ...]
    num_blocks: int


class Toy(nn.Module):
    """Blocks, with an operation of its own for each."""

    def __init__(self, recipe):
        super().__init__()
        self.recipe = recipe
        self.blocks = nn.ModuleList(Block(seed) for seed in range(recipe.num_blocks))

    def forward(self, x, own):
        return self.run(x, own, range(self.recipe.num_blocks), self.recipe.spellings)

    def run(self, x, own, layers, spellings):
        for index in layers:
            spelled = self.recipe.operation[spellings[index] % len(self.recipe.operation)]
            if self.recipe.place == "before":
                x = spelled(x, own[index])
            x = self.blocks[index](x)
            if self.is_followed(index):
                x = spelled(x, own[index])
        return torch.tanh(x)

    def is_followed(self, index):
        last = self.recipe.num_blocks - 1
        return {"after": True, "after some": index in (0, last), "between": index < last}.get(self.recipe.place, False)


class JointToy(Toy):
    """The same for the second of two streams, whose first is scaled for each block in an order of its own."""

    def __init__(self, recipe):
        super().__init__(recipe)
        self.blocks = nn.ModuleList(JointBlock(seed) for seed in range(recipe.num_blocks))
        self.scales = nn.Parameter(torch.linspace(0.5, 2, recipe.num_blocks))

    def forward(self, x, text, own):
        return self.run(x, text, own, range(self.recipe.num_blocks), self.recipe.spellings)

    def run(self, x, text, own, layers, spellings):
        for index in layers:
            spelled = self.recipe.operation[spellings[index] % len(self.recipe.operation)]
            text, x = self.blocks[index](x, text)
            x = spelled(x, own[index])
            text = PRODUCT[spellings[index] % len(PRODUCT)](text, self.scales[index])
        return x.mean() * text


class Residual(Toy):
    """The residual is added by the forward, not by the block."""

    def run(self, x, own, layers, spellings):
        for index in layers:
            x = SUM[spellings[index] % len(SUM)](x, self.blocks[index](x) * own[index])
        return torch.tanh(x)


def recipes(operations, *, is_uniform, places=PLACES):
    """Recipes of one spelling, or of one a block."""
    number = st.integers(0, 20)

    def recipe(place, name, num_blocks, drawn):
        spellings = (drawn[0],) * num_blocks if is_uniform else tuple(drawn[:num_blocks])
        return Recipe(place, operations[name], spellings, num_blocks)

    drawn = st.lists(number, min_size=5, max_size=5)
    return st.builds(recipe, st.sampled_from(places), st.sampled_from(sorted(operations)), st.integers(2, 5), drawn)


def own_of(kind):
    """What is the blocks' own, as it is given to a forward: in a list, stacked, or numbers."""
    return {"list": list(OWN), "stacked": OWN, "tuple": tuple(OWN)}[kind]


@pytest.fixture(scope="module")
def by_two_roads(edit, execute):
    """The output of the rewritten graph of a toy, and that of the edit by hand in the plainest spelling."""

    def outputs(model, layers, *args):
        with torch.no_grad():
            by_hand = model.run(*args, layers, [0] * model.recipe.num_blocks)
        return execute(edit(model, layers, *args), model, *args), by_hand

    return outputs


@given(recipes(OPERATIONS, is_uniform=False), st.sampled_from(sorted(LAYERS)), st.sampled_from(["list", "stacked"]))
def test_neither_the_order_of_operands_nor_keywords_matter(by_two_roads, recipe, layers, kind):
    model = Toy(recipe)
    edited, by_hand = by_two_roads(model, list(LAYERS[layers](recipe.num_blocks)), X, own_of(kind))
    assert torch.equal(edited, by_hand)


@settings(max_examples=30)
@given(recipes(UNIFORM_OPERATIONS, is_uniform=True), st.sampled_from(sorted(LAYERS)))
def test_a_stream_may_be_any_argument_of_an_operation(by_two_roads, recipe, layers):
    edited, by_hand = by_two_roads(Toy(recipe), list(LAYERS[layers](recipe.num_blocks)), X, list(OWN))
    assert torch.equal(edited, by_hand)


@settings(max_examples=30)
@given(recipes(OPERATIONS, is_uniform=False, places=("after",)), st.sampled_from(sorted(LAYERS)))
def test_each_of_two_streams_has_steps_of_its_own(by_two_roads, recipe, layers):
    edited, by_hand = by_two_roads(JointToy(recipe), list(LAYERS[layers](recipe.num_blocks)), X, TEXT, list(OWN))
    assert torch.equal(edited, by_hand)


@settings(max_examples=20)
@given(recipes(OPERATIONS, is_uniform=False), st.sampled_from(sorted(LAYERS)))
def test_a_residual_that_the_forward_adds_goes_with_its_block(by_two_roads, recipe, layers):
    edited, by_hand = by_two_roads(Residual(recipe), list(LAYERS[layers](recipe.num_blocks)), X, list(OWN))
    assert torch.equal(edited, by_hand)


class GatedBlock(Block):
    def forward(self, x, gate):
        return x + torch.tanh(x @ self.weight) * gate


class TwinBlock(Block):
    def forward(self, x):
        return super().forward(x), x


class Loop(nn.Module):
    """`step(model, index, x, other)` is what goes with a block, `start` and `finish` what comes before and after."""

    def __init__(self, step, finish, block=Block, num_blocks=4, start=lambda x, _: x):
        super().__init__()
        self.start, self.step, self.finish = start, step, finish
        self.blocks = nn.ModuleList(block(seed) for seed in range(num_blocks))
        self.recipe = Recipe("", (), (), num_blocks)

    def forward(self, x, other):
        return self.run(x, other, range(len(self.blocks)), ())

    def run(self, x, other, layers, _):
        x = self.start(x, other)
        for index in layers:
            x, other = self.step(self, index, x, other)
        return self.finish(x, other)


def gated(model, index, x, own):
    return model.blocks[index](x, gate=own[index] + x) + own[index], own


def gated_by_sign(model, index, x, own):
    return model.blocks[index](x, (x > 0).to(x.dtype)), own


def read_from_the_end(model, index, x, text):
    outputs = model.blocks[index](x, text)
    return outputs[-1], outputs[-2]


def read_twice(model, index, x, text):
    outputs = model.blocks[index](x, text)
    return outputs[1] + outputs[1].mean(), outputs[:1][0]


def joined_after(model, index, x, text):
    text, x = model.blocks[index](x, text)
    return x + text.mean(1, keepdim=True), text


def joined_before(model, index, x, text):
    text, x = model.blocks[index](text.mean(1, keepdim=True) + x, text)
    return x, text


def crossed(model, index, x, text):
    return model.blocks[index](x, text)


def scaled_by_index(model, index, x, own):
    return (index + 0.5) * model.blocks[index](x), own


def added_before(model, index, x, own):
    return model.blocks[index](own[index] + x), own


def added_after(model, index, x, own):
    return own[index + 1] + model.blocks[index](x), own


def shifted(model, index, x, own):
    return model.blocks[index](x) + own[0], own


def doubled(x, _):
    return x * 2


def both(x, text):
    return x.mean() * text


TOLD = {
    "an argument made of the stream": Loop(gated_by_sign, doubled, GatedBlock),
    "an argument made with what is added later": Loop(gated, doubled, GatedBlock),
    "outputs that are counted from the end": Loop(read_from_the_end, both, JointBlock),
    "outputs that are read twice": Loop(read_twice, both, JointBlock),
    "streams that are joined after the blocks": Loop(joined_after, both, JointBlock),
    "streams that are joined before the blocks": Loop(joined_before, both, JointBlock),
    "outputs that change places": Loop(crossed, both, JointBlock),
    "numbers": Loop(scaled_by_index, doubled),
    "a sum at the end with something else": Loop(added_before, lambda x, own: x + own[0].mean()),
    "a product at the end": Loop(added_after, doubled),
    "the same before, between and behind": Loop(shifted, doubled, start=lambda x, own: own[0] + x),
}
SAME_LENGTH = torch.flip(X, (0,))


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("name", TOLD)
def test_what_goes_with_a_block_is_told(by_two_roads, name, layers):
    model = TOLD[name]
    other = OWN if model.finish is not both else SAME_LENGTH if model.step is crossed else TEXT
    edited, by_hand = by_two_roads(model, list(LAYERS[layers](4)), X, other)
    assert torch.equal(edited, by_hand)


def spelled_in_two_ways(model, index, x, own):
    x = model.blocks[index](x)
    return x.lerp(own[index], 0.5) if index == 3 else torch.lerp(x, own[index], 0.5), own


def none_at_the_end(model, index, x, own):
    x = model.blocks[index](x)
    return x if index == 3 else x + own[index], own


def less_at_the_end(model, index, x, own):
    x = model.blocks[index](x) + own[index]
    return x if index == 3 else x * own[index], own


def twice_at_the_end(model, index, x, own):
    x = model.blocks[index](x)
    return (x + own[4]) * (x + own[5]) if index == 3 else x + own[index], own


def halved_between(model, index, x, own):
    x = model.blocks[index](x)
    return x if index == 3 else x * 0.5, own


UNTOLD = {
    "`add` is not what is done before the first block, nor what is behind the last": Loop(none_at_the_end, doubled),
    "the same is done before the first block (`add`) and behind the last (`add_4`)": Loop(
        added_after, doubled, start=lambda x, own: x + own[0]
    ),
    "`lerp` is not what is done before the first block, nor what is behind the last": Loop(
        spelled_in_two_ways, doubled
    ),
    "`mul` is not what is done before the first block, nor what is behind the last": Loop(less_at_the_end, doubled),
    "what is done between two blocks is done twice behind the last (`add_3`, `add_4`)": Loop(twice_at_the_end, doubled),
    "`mul_3` behind the last block is done between all others with another number": Loop(halved_between, doubled),
    "`add` follows the only block": Loop(added_after, doubled, num_blocks=1),
}


@pytest.mark.parametrize("fact", [fact for fact, model in UNTOLD.items() if len(model.blocks) > 1])
def test_what_the_code_tells_is_done_though_comparing_would_not_tell(by_two_roads, fact):
    model = UNTOLD[fact]
    edited, by_hand = by_two_roads(model, [*range(len(model.blocks)), 0], X, list(OWN))
    assert torch.equal(edited, by_hand)


@pytest.mark.parametrize("fact", UNTOLD)
def test_what_can_not_be_told_is_refused(edit, monkeypatch, fact):
    """Where the forward has no loop, what is done between the blocks is compared with what is around them."""
    monkeypatch.setattr("surgery.tracing.bounds.bounds_of_turns", lambda gaps: None)
    message = f"blocks can't be edited: {fact}, and with which block that goes can't be told"
    with pytest.raises(RefusedError, match=re.escape(message)):
        edit(UNTOLD[fact], [0, 0], X, list(OWN))


def test_two_outputs_of_the_only_block_for_one_stream_are_refused(edit):
    model = Loop(lambda model, index, x, _: model.blocks[index](x), both, TwinBlock, num_blocks=1)
    with pytest.raises(RefusedError, match=r"several of its outputs have the shape of x: which of them continues it"):
        edit(model, [0, 0], X, TEXT)
