"""What constructors compute at length: of the same shape and type without its memory, unless they look at it."""

from pathlib import Path

import torch
from torch import nn

from surgery.anatomy import sources
from surgery.anatomy.large_tables import MAX_VALUES, LargeTablesOnMeta
from surgery.anatomy.sources import build_on_meta, find_source

SIDE = 2200  # whose square is more than MAX_VALUES
SD3 = Path(__file__).parents[1] / "configs" / "sd3-medium"


def table():
    return torch.outer(torch.arange(SIDE, dtype=torch.float64), torch.arange(SIDE)).sin().float()


def test_large_tables_are_not_computed_and_small_ones_are():
    assert SIDE**2 > MAX_VALUES
    with LargeTablesOnMeta():
        found, small = table(), torch.outer(torch.arange(3), torch.arange(3))
    assert found.is_meta and (found.shape, found.dtype) == (table().shape, table().dtype)
    assert small.tolist() == [[0, 0, 0], [0, 1, 2], [0, 2, 4]]


class LooksAtIt(nn.Module):
    """Its constructor makes a choice by the values of its table."""

    def __init__(self):
        super().__init__()
        self.largest = table().max().item()

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_a_constructor_that_looks_at_its_table_has_it():
    assert sources._construct(LooksAtIt, {}).largest == table().max().item()


def test_a_model_with_a_large_table_has_the_tensors_of_one_that_computes_it(monkeypatch):
    def tensors():
        return {name: (value.shape, value.dtype) for name, value in build_on_meta(source).state_dict().items()}

    source = find_source(str(SD3))
    found = tensors()
    assert found["pos_embed.pos_embed"][0].numel() > MAX_VALUES
    monkeypatch.setattr(sources, "_construct", lambda kind, config: kind.from_config(dict(config)))
    assert tensors() == found
