"""The mean and variance of a component's output by channel, over tokens, online, for each branch.

Deviations are summed from a mean that is near (that of the first forward), so that neither sum cancels: with
d_i = y_i - s, the mean is s + sum(d) / n and the sum of squared deviations sum(d^2) - sum(d)^2 / n
(Chan, Golub and LeVeque 1983, section 3).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.profiles.layer_profile import Moments


@dataclass
class _Branch:
    """Of the tokens of one branch: how many, and the sums of their deviations from a shift and of their squares."""

    shift: torch.Tensor
    count: torch.Tensor
    total: torch.Tensor
    squares: torch.Tensor


class OutputSums:
    """The sums of one output; they stay on the device where the output is."""

    def __init__(self) -> None:
        self.shift: torch.Tensor | None = None
        self.branches: dict[str, list[_Branch]] = {}

    def resume(self, branch: str, moments: Moments) -> None:
        """Go on from what was counted before."""
        mean, squares = torch.from_numpy(moments.mean.copy()), torch.from_numpy(moments.squares.copy())
        known = _Branch(mean, torch.tensor(moments.count, dtype=torch.float64), torch.zeros_like(mean), squares)
        self.branches.setdefault(branch, []).append(known)

    def add(self, values: torch.Tensor, mask: torch.Tensor | None, rows_of: Mapping[str, NDArray[np.int_]]) -> None:
        """Count an output (rows, tokens, channels), of the tokens that a mask selects; `rows_of` are by branch."""
        if values.device.type == "mps":  # it has no float64
            values = values.cpu()
        if self.shift is None:
            self.shift = values.double().mean((0, 1))
        deviations = values - self.shift  # in float64, whatever the values are in
        counts = torch.full((len(values),), values.shape[1], dtype=torch.float64, device=values.device)
        if mask is not None:
            weights = mask.to(deviations)
            deviations, counts = deviations * weights[:, :, None], weights.sum(1)
        totals = deviations.sum(1)
        squares = deviations.square_().sum(1)
        for branch, rows in rows_of.items():
            into = self._own(branch)
            chosen = slice(None) if len(rows) == len(values) else slice(int(rows[0]), int(rows[-1]) + 1, _step(rows))
            into.count += counts[chosen].sum()
            into.total += totals[chosen].sum(0)
            into.squares += squares[chosen].sum(0)

    def _own(self, branch: str) -> _Branch:
        """The sums from this output's shift; those that were taken up have shifts of their own."""
        found = self.branches.setdefault(branch, [])
        if not found or found[-1].shift is not self.shift:
            assert self.shift is not None, "something is being counted"
            zeros = [torch.zeros_like(self.shift) for _ in range(2)]
            found.append(_Branch(self.shift, torch.zeros_like(self.shift[0]), *zeros))
        return found[-1]

    def moments(self) -> dict[str, Moments]:
        """What was counted until now, by branch."""
        return {branch: _join(parts) for branch, parts in self.branches.items()}


def _join(parts: list[_Branch]) -> Moments:
    found = [_moments(part) for part in parts]
    joined = found[0]
    for moments in found[1:]:
        joined = joined + moments
    return joined


def _moments(part: _Branch) -> Moments:
    count = float(part.count)
    step = part.total / max(count, 1.0)
    squares = part.squares - part.total * step
    return Moments(count, (part.shift + step).cpu().numpy(), squares.clamp(min=0).cpu().numpy())


def _step(rows: NDArray[np.int_]) -> int:
    """The step of rows of a branch: they lie side by side, or take turns with those of the other."""
    return int(rows[1] - rows[0]) if len(rows) > 1 else 1
