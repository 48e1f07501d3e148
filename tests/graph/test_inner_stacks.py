"""A stack that a submodule runs in its own forward is edited like any other, and is no part of plans that leave it."""

import copy

import pytest
import torch
from torch import nn

from surgery.anatomy.from_model import read_anatomy
from surgery.graph.graph_code import readable_source
from surgery.graph.variant import build_variant, forward_of_variant
from surgery.plan.invariants import check_plan
from surgery.tracing.arguments import flatten_call

X = torch.linspace(-1, 1, 24).reshape(2, 3, 4)
INNER = "embed.refiner.blocks"


class Block(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        nn.init.constant_(self.linear.weight, 0.1 + number / 8)

    def forward(self, x):
        return x + self.linear(x).sin()


class Refiner(nn.Module):
    """Adds to what each of its blocks returns a gift by its number, if it has any."""

    def __init__(self, *, has_gifts):
        super().__init__()
        self.blocks = nn.ModuleList(Block(number) for number in range(4))
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.has_gifts = has_gifts

    def forward(self, x):
        for number, block in enumerate(self.blocks):
            x = block(x)
            if self.has_gifts:
                x = x + self.scale * self.gift(number)
        return x

    def gift(self, number):
        return number + 1.0


class Embed(nn.Module):
    def __init__(self, *, has_gifts):
        super().__init__()
        self.refiner = Refiner(has_gifts=has_gifts)

    def forward(self, x):
        return self.refiner(x * 2) if x.shape[1] > 2 else self.refiner(x)


class Model(nn.Module):
    def __init__(self, *, has_gifts=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed = Embed(has_gifts=has_gifts)
        self.blocks = nn.ModuleList(Block(number) for number in range(3))

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x


class Gifts(Refiner):
    """By hand: blocks in another order, each with the gift of its own number."""

    order = ()

    def gift(self, number):
        return self.order[number] + 1.0


def by_hand(model, order, outer=(0, 1, 2)):
    edited = copy.deepcopy(model)
    refiner = edited.embed.refiner
    refiner.blocks = nn.ModuleList(refiner.blocks[number] for number in order)
    refiner.__class__, refiner.order = Gifts, order
    edited.blocks = nn.ModuleList(edited.blocks[number] for number in outer)
    return edited


@pytest.fixture
def anatomy(monkeypatch):
    """The anatomies of both models, for which a call is known."""
    example = type("Example", (), {"kwargs": {"x": X.to("meta")}, "sizes": {}, "known_from": "a test"})
    monkeypatch.setattr("surgery.anatomy.from_model.example_call", lambda *_, **__: example)
    return {has_gifts: read_anatomy(Model(has_gifts=has_gifts)) for has_gifts in (False, True)}


ORDERS = [
    (f'skip: "{INNER}[1]"', (0, 2, 3)),
    (f'reverse: "{INNER}[0:3]"', (2, 1, 0, 3)),
    (f'repeat: {{layers: "{INNER}[3]", times: 2}}', (0, 1, 2, 3, 3)),
]


@pytest.mark.parametrize("has_gifts", [False, True])
@pytest.mark.parametrize(("operation", "order"), ORDERS)
@torch.no_grad()
def test_the_blocks_of_a_submodule_run_as_planned(plan_of, anatomy, operation, order, has_gifts):
    model = Model(has_gifts=has_gifts)
    assert [stack.name for stack in anatomy[has_gifts].stacks] == ["blocks", INNER]
    plan = plan_of([operation, 'skip: "blocks[1]"'], anatomy[has_gifts])
    variant = build_variant(model, plan, anatomy[has_gifts])
    for x in (X, X[:, :2]):  # the submodule decides on a size
        expected = by_hand(model, order, outer=(0, 2))(x)
        assert torch.equal(variant(x), expected)
        assert not torch.equal(expected, model(x))


@torch.no_grad()
def test_a_plan_that_leaves_an_inner_stack_does_not_name_it(plan_of, anatomy):
    plan = plan_of(['skip: "blocks[1]"'], anatomy[False])
    check_plan(plan, anatomy[False])
    assert plan.text == "model Model\nblocks[3]: 0 2\n"
    variant = build_variant(Model(), plan, anatomy[False])
    variant(X)
    call = flatten_call((X,), {}, forward_of_variant(variant).parameters)
    assert "refiner" not in readable_source(forward_of_variant(variant).rewritten_graph(variant, call)[0])
    check_plan(plan_of([ORDERS[0][0]], anatomy[False]), anatomy[False])
