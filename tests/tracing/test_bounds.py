"""A step is what its forward does for a block, however that is spelled; the laws are edits by hand of a family of toys."""

import itertools
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
    lambda x, a: torch.add(x, a),
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
    "all": lambda n: range(n),
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


@settings(max_examples=80)
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
