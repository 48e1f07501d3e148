"""The branches of classifier-free guidance in the rows of a batch: which rows are of each, and sums over them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Branches:
    """Which rows of a batch are of each branch; `are_runs` where the batch is one equal run of rows after another."""

    rows: dict[str, NDArray[np.int_]]
    are_runs: bool

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The branches, in the order of their first rows."""
        return tuple(self.rows)

    @functools.cached_property
    def sizes(self) -> NDArray[np.int_]:
        """How many rows each has."""
        return np.array([len(rows) for rows in self.rows.values()])

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over rows and tokens: (rows, tokens, channels) -> (branches, channels)."""
        if self.are_runs:
            return values.reshape(len(self.rows), -1, values.shape[-1]).sum(1)
        return torch.stack([values[rows].sum((0, 1)) for rows in self.rows.values()])


def find_branches(of_rows: Sequence[str]) -> Branches:
    """The branches, from that of each row."""
    return _find_branches(tuple(of_rows))


@functools.cache
def _find_branches(of_rows: tuple[str, ...]) -> Branches:
    array = np.asarray(of_rows)
    rows = {branch: np.flatnonzero(array == branch) for branch in dict.fromkeys(of_rows)}
    in_order = np.concatenate(list(rows.values())) if rows else array
    are_runs = len({len(chosen) for chosen in rows.values()}) == 1 and bool((np.diff(in_order) == 1).all())
    return Branches(rows, are_runs)
