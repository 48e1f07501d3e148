"""What a forward decides on the contents of its inputs is worked out on real tensors, and checked on every call."""

import pytest
import torch
from torch import nn

from surgery.errors import TraceError
from surgery.tracing.clone import bare_clone
from surgery.tracing.guards import GuardViolation
from surgery.tracing.tracer import ContentsNeededError, trace_forward

MASK = torch.tensor([True, False, True, True, False])
X = torch.arange(10.0).view(5, 2)


class Forward(nn.Module):
    """A forward of a tensor and a mask, with a stack of blocks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.embedding = nn.Linear(2, 2)


class Symbolic(Forward):
    """Uses contents as numbers and shapes, and decides on nothing."""

    def forward(self, x, mask):
        chosen = x[mask.nonzero(as_tuple=True)[0]]
        length = mask.sum().item()
        return torch.cat([self.embedding(chosen) * length, x[mask], x[:length]])


class Decides(Forward):
    """Python decides on the contents of the mask, also on what a module makes of the input."""

    def forward(self, x, mask):
        if mask.all():
            return x
        scale = 2 if self.embedding(x).sum() > 0 else 3
        lengths = mask.view(1, -1).sum(dim=1).tolist()
        return x[: max(lengths)] * scale * int(mask.sum())


class Squeezes(Forward):
    """The rank of a tensor hangs on contents."""

    def forward(self, x, mask):
        chosen = x[mask].squeeze(0)
        return chosen.mean(dim=0) if chosen.ndim == 2 else chosen


class AsksABlock(Forward):
    """It decides on what a block returns."""

    def forward(self, x, mask):
        for block in self.blocks:
            x = block(x)
        return x if x.sum() > 0 else -x


@pytest.fixture
def trace_on(flatten):
    """The traced forward of a model, on the contents of a call."""

    def traced(model, *args):
        with torch.no_grad():
            call, forward = flatten(model, *args), type(model).forward
            return trace_forward(lambda: bare_clone(model), call, forward, contents_of=model)

    return traced


@pytest.mark.parametrize("mask", [MASK, ~MASK, torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)])
def test_contents_that_are_only_computed_with_may_be_others(trace_on, execute, mask):
    model = Symbolic()
    traced = trace_on(model, X, MASK)
    assert traced.reads_contents and traced.num_decisions == 0
    assert torch.equal(execute(traced, model, X, mask), model(X, mask))


def test_contents_that_are_decided_on_are_checked(trace_on, execute):
    model = Decides()
    traced = trace_on(model, X, MASK)
    other = torch.tensor([False, True, True, False, True])
    for x, mask in ((X, MASK), (X, other), (X / 2, MASK)):
        assert torch.equal(execute(traced, model, x, mask), model(x, mask))
    for x, mask in ((X, ~MASK), (X, MASK | True), (-9 * X, MASK), (9 * X, MASK)):
        expected = model(x, mask)
        try:
            found = execute(traced, model, x, mask)
        except GuardViolation:
            continue
        assert torch.equal(found, expected)


@pytest.mark.parametrize("mask", [~MASK, torch.ones(5, dtype=torch.bool)])
def test_another_decision_is_noticed(trace_on, execute, mask):
    model = Decides()
    with pytest.raises(GuardViolation, match="traced with"):
        execute(trace_on(model, X, MASK), model, X, mask)


def test_a_rank_that_hangs_on_contents_is_checked(trace_on, execute):
    model, one = Squeezes(), torch.tensor([False, False, True, False, False])
    traced = trace_on(model, X, MASK)
    assert torch.equal(execute(traced, model, X, ~MASK), model(X, ~MASK))
    with pytest.raises(GuardViolation, match="traced with 2, called with 1"):
        execute(traced, model, X, one)


def test_without_real_weights_it_says_that_contents_are_missing(trace):
    with pytest.raises(ContentsNeededError, match=r"test_contents.py:\d+: `if mask.all\(\):"):
        trace(Decides(), X, MASK)


def test_a_decision_on_what_a_block_returns_is_refused(trace_on):
    with pytest.raises(TraceError, match=r"return x if x.sum\(\) > 0 .*: it decides on what blocks.2 returns"):
        trace_on(AsksABlock(), X, MASK)
