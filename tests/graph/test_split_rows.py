"""Rows of a batch that run apart are joined in their order, in whatever the call and its result hold them."""

import itertools

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from surgery.errors import RefusedError
from surgery.graph.split_rows import num_rows_of, run_apart

ROWS = torch.arange(4.0)[:, None].expand(4, 3).clone()
CALL = {
    "ids": torch.zeros(7, 3),  # of the whole call
    "texts": [torch.full((length,), float(row)) for row, length in enumerate((3, 1, 5, 2))],  # an entry a row
    "more": {"time": torch.arange(4.0), "scale": 2.0},
}


def forward(number, args, kwargs):
    """Something of each row, by each road, in each kind of result."""
    (rows,) = args
    assert kwargs["ids"].shape == (7, 3)
    means = torch.stack([text.mean() for text in kwargs["texts"]])
    whole = rows + kwargs["more"]["scale"] * kwargs["more"]["time"][:, None] + means[:, None]
    return {"tensor": whole, "tuple": (whole, list(whole)), "output": Transformer2DModelOutput(sample=whole)}


@pytest.mark.parametrize("parts", [[[1, 3], [0, 2]], [[3], [2, 1], [0]], [[0, 1, 2], [3]]])
def test_parts_are_joined_in_the_order_of_their_rows(parts):
    expected = forward(0, (ROWS,), CALL)["tensor"]
    for kind in ("tensor", "tuple", "output"):
        found = run_apart(parts, (ROWS,), CALL, lambda *call, kind=kind: forward(*call)[kind])
        assert type(found) is type(forward(0, (ROWS,), CALL)[kind])
        values = (
            (found[0], torch.stack(found[1])) if kind == "tuple" else (found["sample"] if kind == "output" else found,)
        )
        assert all(torch.equal(value, expected) for value in values)


def test_each_way_to_part_four_rows_gives_the_same():
    for cut in itertools.product((0, 1), repeat=4):
        parts = [[row for row in range(4) if cut[row] == side] for side in (0, 1)]
        parts = [part for part in parts if part]
        assert torch.equal(run_apart(parts, (ROWS,), {}, lambda _, args, __: args[0] * 2), ROWS * 2)


def test_what_is_not_an_entry_a_row_is_refused():
    with pytest.raises(RefusedError, match="its batch can't be split"):
        run_apart([[0, 1], [2, 3]], (ROWS,), {}, lambda _, args, __: args[0].sum(0))


def test_rows_are_counted_by_the_first_argument():
    assert [num_rows_of(value) for value in (ROWS, [ROWS, ROWS], torch.tensor(1.0), None)] == [4, 2, 1, 1]
