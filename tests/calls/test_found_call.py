"""Inputs with which a model runs are found from its config alone, in bounded time; what ships was found so."""

import inspect

import diffusers
import pytest
import torch
from example_rows import build_with_few_layers
from tiny import STACKS, tiny_anatomy, tiny_model
from torch import nn

from surgery.anatomy.from_model import read_anatomy
from surgery.calls import example_inputs, found_call, trials
from surgery.calls.example_inputs import SHAPES, example_call, shipped_rows, sizes_for_config
from surgery.calls.found_call import find_call
from surgery.calls.kept_calls import KeptCall
from surgery.testing import build_tiny_model


@pytest.mark.parametrize(
    "name", ["flux", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sd3", "auraflow", "dit"))]
)
def test_what_is_found_tells_the_same_of_a_model_as_the_row_by_hand(name, monkeypatch):
    model = build_tiny_model(name)
    row = find_call(model, sizes_for_config(dict(model.config)))
    assert row is not None
    monkeypatch.setattr(example_inputs, "known_call", lambda _: KeptCall(row, {}, "config"))
    for found, known in zip(read_anatomy(model).stacks, tiny_anatomy(name).stacks, strict=True):
        assert (found.name, found.streams, found.refusal) == (known.name, known.streams, None)
        assert found.kinds[0].components == known.kinds[0].components
    assert [stack.name for stack in tiny_anatomy(name).stacks] == STACKS[name]


def test_the_search_ends(monkeypatch):
    class Endless(nn.Module):
        config = {"in_channels": 4}  # noqa: RUF012  (as diffusers has it)

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, hidden_states):
            while True:
                hidden_states = hidden_states + 1

    monkeypatch.setattr(found_call, "SECONDS", 0.05)
    monkeypatch.setattr(trials, "LAST_SECONDS", 0.1)
    assert find_call(Endless(), {"batch": 2, "image": 3, "height": 4, "width": 4, "frames": 1}) is None


def test_nothing_is_said_or_changed_by_the_search(caplog, recwarn):
    model = tiny_model("dit")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_call(model, sizes_for_config(dict(model.config)))
    assert not caplog.records and not recwarn.list
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_no_class_has_two_rows_and_all_are_of_diffusers():
    assert not set(shipped_rows()) & set(SHAPES)
    for name, row in shipped_rows().items():
        known = inspect.signature(inspect.unwrap(getattr(diffusers, name).forward)).parameters
        assert set(row) <= set(known)


SAMPLE = ("QwenImageTransformer2DModel", "ZImageTransformer2DModel", "CogView4Transformer2DModel")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in SAMPLE)) for name in shipped_rows()],
)
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # of diffusers, over itself
def test_a_row_that_ships_runs(name):
    model = build_with_few_layers(name)
    example = example_call(model)
    assert example.known_from == "found row"
    with torch.no_grad():
        model(**example.kwargs)
