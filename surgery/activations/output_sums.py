"""The mean and variance of a component's output by channel, over tokens, online, for each branch.

Deviations are summed from a mean that is near (that of the first forward), so that neither sum cancels: with
d_i = y_i - s, the mean is s + sum(d) / n and the sum of squared deviations sum(d^2) - sum(d)^2 / n
(Chan, Golub and LeVeque 1983, section 3).
"""

from dataclasses import dataclass

import torch

from surgery.activations.branches import TokenWeights
from surgery.activations.row_sums import exact
from surgery.profiles.layer_profile import Moments


@dataclass(eq=False)
class _Sums:
    """Of some branches: how many tokens, the sums of deviations from a shift and of squares (branches, channels)."""

    shift: torch.Tensor
    counts: list[float]
    total: torch.Tensor
    squares: torch.Tensor

    def moments(self, number: int) -> Moments:
        """Of one of the branches."""
        count = self.counts[number]
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

    def add(self, values: torch.Tensor, weights: TokenWeights) -> None:
        """Count an output (rows, tokens, channels), of the tokens that have a weight."""
        deviations = exact(values, copy=True).flatten(0, 1)
        if self.shift is None:
            self.shift = deviations.mean(0)
        sums = self.sums.get(weights.names) or self._begin(weights.names, self.shift)
        sums.counts = [before + count for before, count in zip(sums.counts, weights.counts, strict=True)]
        sums.total.addmm_(weights.matrix, deviations.sub_(self.shift))
        sums.squares.addmm_(weights.matrix, deviations.square_())

    def _begin(self, names: tuple[str, ...], shift: torch.Tensor) -> _Sums:
        total, squares = (shift.new_zeros(len(names), len(shift)) for _ in range(2))
        self.sums[names] = _Sums(shift, [0.0] * len(names), total, squares)
        return self.sums[names]

    def moments(self) -> dict[str, Moments]:
        """What was counted until now, by branch."""
        found = dict(self.before)
        for branches, sums in self.sums.items():
            for number, branch in enumerate(branches):
                moments = sums.moments(number)
                found[branch] = found[branch] + moments if branch in found else moments
        return found
