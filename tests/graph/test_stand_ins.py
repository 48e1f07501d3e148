"""What stands in for a component is asked for more than its output: sizes and settings, as forwards read them."""

import copy

import pytest
import torch
from torch import nn

from surgery.anatomy.anatomy import Component, TokenOutput
from surgery.graph.replace import build_replacement


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 1)
        self.window = 8

    def forward(self, x):
        return self.conv(x)


@pytest.fixture
def stand_in():
    known = Component("c", "Wrapped", 30, (TokenOutput("x", 4, 6, 1),))
    return build_replacement("zero", known, Wrapped())


def test_sizes_and_settings_are_those_of_the_component(stand_in):
    assert (stand_in.conv.out_channels, stand_in.window) == (6, 8)
    assert stand_in(torch.ones(2, 4, 3, 3)).shape == (2, 6, 3, 3)


def test_the_component_is_no_part_of_what_stands_in_for_it(stand_in):
    assert not list(stand_in.children()) and not stand_in.state_dict()
    assert not list(stand_in.conv.parameters())
    assert copy.deepcopy(stand_in).window == 8


def test_weights_and_what_is_not_there_are_refused(stand_in):
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        stand_in.nothing  # noqa: B018
    linear = build_replacement("zero", Component("c", "Linear", 20, (TokenOutput("input", 4, 4),)), nn.Linear(4, 4))
    assert linear.out_features == 4
    with pytest.raises(AttributeError, match="no attribute 'weight'"):
        linear.weight  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'weight'"):
        stand_in.conv.weight  # noqa: B018


def test_a_picture_is_replaced_along_its_channels():
    known = Component("c", "Conv2d", 20, (TokenOutput("input", 4, 4, 1),))
    picture, mean = torch.randn(2, 4, 3, 3), torch.arange(4.0)
    made = {kind: build_replacement(kind, known, nn.Conv2d(4, 4, 1)) for kind in ("zero", "input", "channel_mean")}
    made["mean"] = build_replacement("mean", known, nn.Conv2d(4, 4, 1), {"input": mean})
    assert torch.equal(made["zero"](picture), torch.zeros_like(picture))
    assert torch.equal(made["input"](picture), picture)
    assert torch.equal(made["channel_mean"](picture)[:, 2], picture.mean(dim=1))
    assert torch.equal(made["mean"](picture), mean[None, :, None, None].expand(2, 4, 3, 3))
