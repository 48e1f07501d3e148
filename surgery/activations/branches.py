"""The branches of classifier-free guidance in a batch: which rows are of each, and which of their tokens count."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.activations.row_sums import where_exact


def rows_by_branch(of_rows: Sequence[str]) -> Mapping[str, NDArray[np.int_]]:
    """The rows of each branch, from the branch of each row; branches are in the order of their first rows."""
    return _rows_by_branch(tuple(of_rows))


@functools.cache
def _rows_by_branch(of_rows: tuple[str, ...]) -> dict[str, NDArray[np.int_]]:
    array = np.asarray(of_rows)
    return {branch: np.flatnonzero(array == branch) for branch in dict.fromkeys(of_rows)}


@dataclass(frozen=True, eq=False)
class TokenWeights:
    """Which tokens of a batch count for each branch, so that a matrix product sums over them.

    `matrix` (branches, rows * tokens) is 1 in float64 where a token counts and 0 elsewhere; `counts` are its sums.
    """

    names: tuple[str, ...]
    matrix: torch.Tensor
    counts: NDArray[np.float64]


def weigh_tokens(of_rows: Sequence[str], values: torch.Tensor, mask: torch.Tensor | None) -> TokenWeights:
    """The weights of the tokens of `values` (rows, tokens, channels): all, or those that a mask (rows, tokens) selects.

    The matrix is on the device of `values`, or on the CPU where that has no float64.
    """
    device = where_exact(values[:0]).device
    if mask is None:
        return _weigh_all(tuple(of_rows), values.shape[1], device)
    return _weigh(of_rows, mask.cpu().numpy(), device)


@functools.lru_cache(maxsize=4)  # most forwards of a run are alike
def _weigh_all(of_rows: tuple[str, ...], num_tokens: int, device: torch.device) -> TokenWeights:
    return _weigh(of_rows, np.ones((len(of_rows), num_tokens)), device)


def _weigh(of_rows: Sequence[str], mask: NDArray[Any], device: torch.device) -> TokenWeights:
    rows = rows_by_branch(of_rows)
    array = np.zeros((len(rows), *mask.shape))
    for weights, chosen in zip(array, rows.values(), strict=True):
        weights[chosen] = mask[chosen]
    return TokenWeights(tuple(rows), torch.from_numpy(array).flatten(1).to(device), array.sum((1, 2)))
