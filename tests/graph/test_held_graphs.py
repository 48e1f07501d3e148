"""However calls change, a variant holds a bounded number of graphs, and what it has let go is traced again."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from torch import nn

from surgery.errors import PartialTraceWarning
from surgery.graph import held_graphs
from surgery.graph.apply import apply
from surgery.graph.held_graphs import MAX_HELD_GRAPHS
from surgery.graph.rewritten_forward import RewrittenForward
from surgery.graph.variant import forward_of_variant, source_of_variant
from surgery.spec.load import read_spec

WIDTH = 4
SKIP = read_spec("surgery: v1\noperations: [{skip: 'blocks[1]'}]")


class Toy(nn.Module):
    """A stack of blocks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def run(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class DecidesOnSize(Toy):
    def forward(self, x):
        x = self.run(x)
        return x * x.shape[0] if x.shape[0] % 2 else x - x.shape[0]


class TakesIndices(Toy):
    """What comes with a tensor says which of its rows count, and is decided on."""

    def forward(self, x, chosen):
        x = self.run(x)
        if isinstance(chosen, slice):
            return x[chosen]
        return sum((x[index] * index for index in chosen), torch.zeros(()))


class ReadsContents(TakesIndices):
    """The same, traced in part only."""

    def forward(self, x, chosen):
        return super().forward(x, chosen) if float(x.sum()) > -1e9 else x


@pytest.fixture
def traces(monkeypatch):
    """The calls that were traced, one after the other."""
    found = []
    trace = RewrittenForward.trace

    def noted(self, variant, call, **options):
        found.append(call)
        return trace(self, variant, call, **options)

    monkeypatch.setattr(RewrittenForward, "trace", noted)
    return found


@pytest.fixture
def run():
    """The output of a model without gradients; that it is traced in part is expected."""

    def call(model, *args):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", PartialTraceWarning)
            return model(*args)

    return call


def variant_and_edited(toy):
    """A variant without its second block, and the same edit by hand."""
    model = toy()
    edited = copy.deepcopy(model)
    del edited.blocks[1]
    return apply(model, SKIP), edited


def graphs_of(variant):
    return forward_of_variant(variant).graphs


def run_many_sizes(run, variant, edited, num_sizes, bound):
    """Every size gives what the edit by hand gives, and at no time are more graphs held than may be."""
    for size in range(1, num_sizes + 1):
        x = torch.linspace(-1, 1, size * WIDTH).view(size, WIDTH)
        assert torch.equal(run(variant, x), run(edited, x))
        num_held = len(graphs_of(variant))
        assert num_held <= bound, f"{num_held} graphs are held after {size} sizes"


@pytest.mark.parametrize(("num_sizes", "bound"), [(30, 10), pytest.param(200, MAX_HELD_GRAPHS, marks=pytest.mark.slow)])
def test_a_model_that_decides_on_sizes_holds_a_bounded_number_of_graphs(run, traces, monkeypatch, num_sizes, bound):
    monkeypatch.setattr(held_graphs, "MAX_HELD_GRAPHS", bound)
    variant, edited = variant_and_edited(DecidesOnSize)
    run_many_sizes(run, variant, edited, num_sizes, bound)
    assert len(graphs_of(variant)) == bound and len(traces) == num_sizes
    x = torch.ones(1, WIDTH)
    assert torch.equal(run(variant, x), run(edited, x))
    assert len(traces) == num_sizes + 1  # the graph of the first size was let go, and is traced again


def test_without_the_bound_graphs_would_pile_up(run, monkeypatch):
    """The saboteur: the check above must see it."""
    monkeypatch.setattr(held_graphs, "MAX_HELD_GRAPHS", 1000)
    with pytest.raises(AssertionError, match="11 graphs are held after 11 sizes"):
        run_many_sizes(run, *variant_and_edited(DecidesOnSize), 11, 10)


def test_the_least_recently_used_graph_makes_room(run, traces, monkeypatch):
    monkeypatch.setattr(held_graphs, "MAX_HELD_GRAPHS", 3)
    variant = apply(DecidesOnSize(), SKIP)
    for size in (1, 2, 3, 1, 4, 3, 1, 4):  # 2 makes room for 4
        run(variant, torch.ones(size, WIDTH))
    assert [call.inputs[0].shape[0] for call in traces] == [1, 2, 3, 4]
    run(variant, torch.ones(2, WIDTH))
    run(variant, torch.ones(1, WIDTH))
    assert [call.inputs[0].shape[0] for call in traces] == [1, 2, 3, 4, 2]


def test_what_a_graph_holds_goes_with_it(run, monkeypatch):
    monkeypatch.setattr(held_graphs, "MAX_HELD_GRAPHS", 2)
    variant = apply(TakesIndices(), SKIP)

    class Chosen(list):  # compared by identity, and held by the key
        pass

    chosen = [Chosen([index]) for index in range(3)]
    held = [weakref.ref(item) for item in chosen]
    for index in range(3):
        run(variant, torch.ones(4, WIDTH), chosen[index])
    del chosen
    gc.collect()
    assert [reference() is None for reference in held] == [True, False, False]


def test_the_code_that_is_shown_is_that_of_the_first_trace(run, monkeypatch):
    monkeypatch.setattr(held_graphs, "MAX_HELD_GRAPHS", 1)
    variant = apply(DecidesOnSize(), SKIP)
    run(variant, torch.ones(2, WIDTH))
    first = source_of_variant(variant)
    run(variant, torch.ones(3, WIDTH))
    assert source_of_variant(variant) == first


FRESH = {
    "slice": lambda: slice(1, 3),
    "range": lambda: range(1, 4, 2),
    "set": lambda: {3, 1},
    "frozenset": lambda: frozenset({2, 1}),
}
OTHERS = {
    "slice": [slice(1, 4), slice(1, 3, 2), slice(None, 3)],
    "range": [range(1, 4), range(1, 5, 2)],
    "set": [{3, 1, 2}, {1}],
    "frozenset": [frozenset({2}), {2, 1}],
}


@pytest.mark.parametrize("kind", FRESH)
@pytest.mark.parametrize("toy", [TakesIndices, ReadsContents])
def test_what_is_equal_finds_the_same_graph_however_fresh(run, traces, toy, kind):
    (variant, edited), x = variant_and_edited(toy), torch.linspace(-1, 1, 6 * WIDTH).view(6, WIDTH)
    for _ in range(5):
        assert torch.equal(run(variant, x, FRESH[kind]()), run(edited, x, FRESH[kind]()))
    assert len(graphs_of(variant)) == len(traces) == 1
    for other in OTHERS[kind]:
        assert torch.equal(run(variant, x, other), run(edited, x, other))
    assert len(graphs_of(variant)) == len(traces) == 1 + len(OTHERS[kind])


@pytest.mark.parametrize("toy", [TakesIndices, ReadsContents])
def test_a_set_that_has_changed_finds_another_graph(run, toy):
    (variant, edited), x, chosen = variant_and_edited(toy), torch.linspace(-1, 1, 6 * WIDTH).view(6, WIDTH), {1}
    for index in (2, 3):
        assert torch.equal(run(variant, x, chosen), run(edited, x, chosen))
        chosen.add(index)
    assert torch.equal(run(variant, x, {1}), run(edited, x, {1}))


def test_sets_in_another_order_have_graphs_of_their_own(run):
    """The order in which a set is gone through decides the order of a sum, and with it the last bit."""
    (variant, edited), x = variant_and_edited(TakesIndices), torch.linspace(-1, 1, 9 * WIDTH).view(9, WIDTH)
    orders = [set(order) for order in ([0, 8, 1], [8, 0, 1])]
    assert orders[0] == orders[1] and list(orders[0]) != list(orders[1])
    for chosen in orders * 2:
        assert torch.equal(run(variant, x, chosen), run(edited, x, chosen))
    assert len(graphs_of(variant)) == 2
