"""A forward runs the code of plain objects that its model holds: what they keep is theirs, before a trace and after."""

import copy

import pytest
import torch
from torch import nn

from surgery.anatomy.from_model import read_anatomy
from surgery.errors import RefusedError
from surgery.graph.variant import build_variant, forward_of_variant
from surgery.tracing.own_objects import held_in_objects, is_plain_object

NAMES = ("in_attribute", "in_list", "in_nested_list", "in_dict", "in_inner_object", "on_the_model")
X = torch.linspace(-1, 1, 12).reshape(2, 3, 2)
X.requires_grad_(False)


class Inner:
    """What a helper may hold."""

    table = None


class Tables:
    """Makes a table once, and keeps it, somewhere; `gain` is what a user may change."""

    def __init__(self, name):
        self.name, self.gain, self.kept, self.inner = name, 1.0, None, Inner()

    def __call__(self, ids):
        if self.find() is None:
            self.keep(torch.arange(8, dtype=torch.float32)[:, None].repeat(1, 2).cos())
        return self.find()[ids] * self.gain

    def find(self):
        match self.name:
            case "in_list" if self.kept is not None:
                return self.kept[1]
            case "in_nested_list" if self.kept is not None:
                return self.kept[0][1]
            case "in_dict" if self.kept is not None:
                return self.kept["table"]
            case "in_inner_object":
                return self.inner.table
        return self.kept

    def keep(self, table):
        self.inner.table = table
        wrapped = {"in_list": [None, table], "in_nested_list": [(None, table)], "in_dict": {"table": table}}
        self.kept = wrapped.get(self.name, table)


class Block(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), 0.5 + number))

    def forward(self, x, table):
        return x + (x * self.weight + table).sin()


class Model(nn.Module):
    """Gives its blocks a table that a helper has made, or one that it holds in a list of its own."""

    def __init__(self, name="in_attribute"):
        super().__init__()
        self.blocks = nn.ModuleList(Block(number) for number in range(3))
        self.tables = Tables(name)
        self.lists = [[torch.linspace(0, 2, 16).reshape(8, 2)]]
        self.reads_list = name == "on_the_model"

    def forward(self, x):
        ids = torch.arange(x.shape[1], device=x.device)
        table = self.lists[0][0][ids] if self.reads_list else self.tables(ids)
        for block in self.blocks:
            x = block(x, table)
        return x


def by_hand(model, x):
    """The model without its second block."""
    edited = copy.deepcopy(model)
    del edited.blocks[1]
    return edited(x)


@pytest.fixture
def skip(plan_of):
    """A variant without the second block."""

    def build(model):
        anatomy = read_anatomy(model)
        return build_variant(model, plan_of(['skip: "blocks[1]"'], anatomy), anatomy)

    return build


@pytest.mark.parametrize("was_run", [False, True])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_table_of_a_helper_is_traced_wherever_it_is_kept(skip, name, was_run):
    model = Model(name)
    if was_run:
        model(X)
    variant = skip(model)
    assert torch.equal(variant(X), by_hand(model, X))
    assert torch.equal(variant(X[:, :2]), by_hand(model, X[:, :2]))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_trace_leaves_nothing_in_the_objects_of_the_original(skip, name):
    model = Model(name)
    before = vars(model.tables).copy()
    variant = skip(model)
    variant(X)
    assert vars(model.tables) == before
    assert model.tables.inner.table is None
    model(X)
    held = [value for _, value in held_in_objects(model) if isinstance(value, torch.Tensor)]
    assert held
    assert {type(value) for value in held} == {torch.Tensor}


@torch.no_grad()
def test_what_the_original_makes_later_is_seen(skip):
    """A variant shares the helper: a graph of the time before is none for the time after."""
    model = Model("in_list")
    variant = skip(model)
    variant(X)
    model(X)
    assert torch.equal(variant(X), by_hand(model, X))
    model.tables.kept[1].mul_(2)  # read at every run
    assert torch.equal(variant(X), by_hand(model, X))
    assert len(forward_of_variant(variant).graphs) == 2
    model.tables.kept[1] = model.tables.kept[1] * 2  # another tensor than the one that `inner` holds
    assert torch.equal(variant(X), by_hand(model, X))


@torch.no_grad()
def test_a_setting_of_a_helper_may_change(skip):
    model = Model()
    variant = skip(model)
    before = variant(X)
    model.tables.gain = 3.0
    assert torch.equal(variant(X), by_hand(model, X))
    assert not torch.equal(variant(X), before)


@torch.no_grad()
def test_a_variant_with_a_helper_compiles(skip):
    model = Model("in_list")
    model(X)
    variant = skip(model)
    compiled = torch.compile(variant, backend="eager", fullgraph=True)
    expected = by_hand(model, X)
    variant(X)
    assert torch.equal(compiled(X), expected)


class Remembers(Model):
    """Adds what it was given the last time."""

    def __init__(self):
        super().__init__()
        self.last = None

    def forward(self, x):
        before, self.last = self.last, x * 2
        return super().forward(x if before is None else x + before)


class RemembersInHelper(Model):
    """The same, in an object."""

    def __init__(self):
        super().__init__()
        self.tables.last = [None]

    def forward(self, x):
        before, self.tables.last = self.tables.last[0], [x * 2]
        return super().forward(x if before is None else x + before)


class Notes(Model):
    """Keeps its input, and never looks at it again."""

    def forward(self, x):
        self.noted = x
        return super().forward(x)


class KeepsSizes(Model):
    """Keeps what it has made of sizes alone."""

    def forward(self, x):
        self.positions = torch.arange(x.shape[1] + 1)
        return super().forward(x) + self.positions[1:, None]


@pytest.mark.parametrize(("kind", "place"), [(Remembers, "last"), (RemembersInHelper, "tables.last.0")])
@torch.no_grad()
def test_what_is_kept_of_inputs_for_the_next_call_is_refused(skip, kind, place):
    text = f"^{kind.__name__} can't be edited: from call to call it keeps {place}, which is made of its inputs"
    with pytest.raises(RefusedError, match=text):
        skip(kind())(X)


@pytest.mark.parametrize("kind", [Notes, KeepsSizes])
@torch.no_grad()
def test_what_a_call_does_not_hang_on_may_be_kept(skip, kind):
    model = kind()
    variant = skip(model)
    for x in (X, X[:, :2]):
        assert torch.equal(variant(x), by_hand(model, x))


@pytest.mark.parametrize(
    ("value", "is_plain"), [(Tables("x"), True), (nn.Identity(), False), ([], False), (len, False), (Tables, False)]
)
def test_an_object_is_plain_if_all_of_it_stands_in_its_attributes(value, is_plain):
    assert is_plain_object(value) is is_plain
