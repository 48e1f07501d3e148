"""The mean and variance of a component's output by channel, over tokens, online, for each branch.

Deviations are summed from a mean that is near (that of the first forward), so that neither sum cancels: with
d_i = y_i - s, the mean is s + sum(d) / n and the sum of squared deviations sum(d^2) - sum(d)^2 / n
(Chan, Golub and LeVeque 1983, section 3).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.activations.branches import Branches
from surgery.activations.row_sums import exact
from surgery.profiles.layer_profile import Moments


@dataclass
class _Sums:
    """Of some branches: how many tokens, the sums of deviations from a shift and of squares (b, channels).

    Whole outputs are counted in `tokens`; where a mask selects tokens, they are counted where the output is.
    """

    shift: torch.Tensor
    tokens: NDArray[np.int_]
    masked_tokens: torch.Tensor
    total: torch.Tensor
    squares: torch.Tensor

    def moments(self, number: int) -> Moments:
        """Of one of the branches."""
        count = float(self.tokens[number]) + float(self.masked_tokens[number])
        step = self.total[number] / max(count, 1.0)
        squares = self.squares[number] - self.total[number] * step
        return Moments(count, (self.shift + step).cpu().numpy(), squares.clamp(min=0).cpu().numpy())


class OutputSums:
    """The sums of one output; they stay on the device where the output is."""

    def __init__(self) -> None:
        self.shift: torch.Tensor | None = None
        self.sums: dict[tuple[str, ...], _Sums] = {}
        self.before: dict[str, Moments] = {}

    def resume(self, branch: str, moments: Moments) -> None:
        """Go on from what was counted before."""
        self.before[branch] = moments

    def add(self, values: torch.Tensor, mask: torch.Tensor | None, branches: Branches) -> None:
        """Count an output (rows, tokens, channels), of the tokens that a mask selects."""
        deviations = exact(values)
        if self.shift is None:
            self.shift = deviations.mean((0, 1))
        deviations = deviations - self.shift if deviations is values else deviations.sub_(self.shift)
        sums = self.sums.get(branches.names) or self._begin(branches.names, self.shift)
        if mask is None:
            sums.tokens += branches.sizes * values.shape[1]
        else:
            weights = mask.to(deviations)[:, :, None]
            deviations = deviations * weights
            sums.masked_tokens += branches.sum(weights)[:, 0]
        sums.total += branches.sum(deviations)
        sums.squares += branches.sum(deviations.square_())

    def _begin(self, names: tuple[str, ...], shift: torch.Tensor) -> _Sums:
        total, squares = (shift.new_zeros(len(names), len(shift)) for _ in range(2))
        self.sums[names] = _Sums(shift, np.zeros(len(names), int), shift.new_zeros(len(names)), total, squares)
        return self.sums[names]

    def moments(self) -> dict[str, Moments]:
        """What was counted until now, by branch."""
        found = dict(self.before)
        for branches, sums in self.sums.items():
            for number, branch in enumerate(branches):
                moments = sums.moments(number)
                found[branch] = found[branch] + moments if branch in found else moments
        return found
