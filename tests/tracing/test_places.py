"""What stands around the loop of the blocks is of no block, however the loop is written and wherever it stands."""

import functools

import pytest
import torch
from torch import nn

from surgery.graph.rewrite import rewrite_graph
from surgery.plan.schedule import Layer, Schedule
from surgery.tracing import places
from surgery.tracing.tracer import TracedForward

WIDTH = 4
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, WIDTH, generator=GENERATOR)
ORDERS = [(0, 1), (2, 1, 0), (1, 2)]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=GENERATOR) / 2)

    def forward(self, x):
        return x + torch.tanh(x @ self.weight)


class Model(nn.Module):
    """Three blocks, and a layer on either side of them."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.others = nn.ModuleList(Block() for _ in range(2))
        self.before, self.after = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)


class OneOfTwoStacks(Model):
    def forward(self, x):
        for before, blocks, after in ((self.before, self.blocks, self.after), (None, self.others, None)):
            x = before(x) if before is not None else x
            for block in blocks:
                x = block(x)
            x = after(x) if after is not None else x
        return x


class WithinALoopOfOneRound(Model):
    def forward(self, x):
        for part in x.chunk(1):
            y = self.before(part)
            for block in self.blocks:
                y = block(y)
            y = self.after(y)
        return y


class UnrolledInALoop(Model):
    def forward(self, x):
        for _ in range(1):
            x = self.before(x)
            x = self.blocks[0](x)
            x = self.blocks[1](x)
            x = self.blocks[2](x)
            x = self.after(x)
        return x


class UnrolledInAFunction(Model):
    def forward(self, x):
        return self.run(x * 3)

    def run(self, x):
        x = self.before(x)
        x = self.blocks[0](x)
        x = self.blocks[1](x)
        x = self.blocks[2](x)
        return self.after(x)


class InAWhile(Model):
    def forward(self, x):
        x, number = self.before(x), 0
        while number < len(self.blocks):
            x = self.blocks[number](x)
            number += 1
        return self.after(x)


class Reduced(Model):
    def forward(self, x):
        return self.run(x)

    def run(self, x):
        return self.after(functools.reduce(lambda y, block: block(y), self.blocks, self.before(x)))


class BehindALoopThatCatches(Model):
    """From Python 3.12 on the code for exceptions stands at the end of the function, and jumps back from there."""

    def forward(self, x):
        for scale in (2, 3):
            try:
                x = x * scale
            except ValueError:
                continue
        x = self.before(x)
        for block in self.blocks:
            with torch.autocast("cpu", enabled=False):
                x = block(x)
        return self.after(x)


def by_hand(model, x, order):
    x = {UnrolledInAFunction: x * 3, BehindALoopThatCatches: x * 6}.get(type(model), x)
    x = model.before(x)
    for index in order:
        x = model.blocks[index](x)
    x = model.after(x)
    for block in model.others if isinstance(model, OneOfTwoStacks) else ():
        x = block(x)
    return x


def edited(trace, execute, kind, order):
    """The outputs of the rewritten graph and of the edit by hand."""
    model = kind().eval()
    traced = trace(model, x=X)
    schedule = Schedule("blocks", 3, tuple(map(Layer, order)))
    graph = rewrite_graph(traced.graph, traced.model, {"blocks": schedule})
    with torch.no_grad():
        return execute(TracedForward(graph, model, 0), model, x=X), by_hand(model, X, order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", Model.__subclasses__())
def test_what_stands_around_the_blocks_is_of_none_of_them(trace, execute, kind, order):
    found, wanted = edited(trace, execute, kind, order)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [OneOfTwoStacks, WithinALoopOfOneRound])
def test_the_check_sees_an_outer_loop_that_is_taken_for_the_blocks(trace, execute, monkeypatch, kind):
    def outermost(place):
        for level, (code, offset) in enumerate(place):
            around = [body for body in places.loops_of(code) if offset in body]
            if around:
                return places.Turn(place, level, max(around, key=len))
        return None

    monkeypatch.setattr(places, "_innermost_loop", outermost)
    found, wanted = edited(trace, execute, kind, ORDERS[1])
    assert not torch.allclose(found, wanted, atol=1e-3)
