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
class _Sums:
    """Of some branches: how many tokens (b,), the sums of deviations from a shift and of squares (b, channels)."""

    shift: torch.Tensor
    count: torch.Tensor
    total: torch.Tensor
    squares: torch.Tensor

    def moments(self, number: int) -> Moments:
        """Of one of the branches."""
        count = float(self.count[number])
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

    def add(self, values: torch.Tensor, mask: torch.Tensor | None, rows_of: Mapping[str, NDArray[np.int_]]) -> None:
        """Count an output (rows, tokens, channels), of the tokens that a mask selects; `rows_of` are by branch."""
        exact = (values.cpu() if values.device.type == "mps" else values).double()  # mps has no float64
        if self.shift is None:
            self.shift = exact.mean((0, 1))
        deviations = exact - self.shift if exact is values else exact.sub_(self.shift)
        weights = None if mask is None else mask.to(deviations)
        if weights is not None:
            deviations = deviations * weights[:, :, None]
        into = self.sums.get(tuple(rows_of))
        if into is None:
            zeros = [
                torch.zeros(len(rows_of), *shape).to(self.shift) for shape in ((), self.shift.shape, self.shift.shape)
            ]
            into = self.sums[tuple(rows_of)] = _Sums(self.shift, *zeros)
        into.total += _sum_by_branch(deviations, rows_of)
        into.squares += _sum_by_branch(deviations.square_(), rows_of)
        if weights is None:
            into.count += torch.tensor([len(rows) * values.shape[1] for rows in rows_of.values()]).to(into.count)
        else:
            into.count += _sum_by_branch(weights[:, :, None], rows_of)[:, 0]

    def moments(self) -> dict[str, Moments]:
        """What was counted until now, by branch."""
        found = dict(self.before)
        for branches, sums in self.sums.items():
            for number, branch in enumerate(branches):
                moments = sums.moments(number)
                found[branch] = found[branch] + moments if branch in found else moments
        return found


def _sum_by_branch(values: torch.Tensor, rows_of: Mapping[str, NDArray[np.int_]]) -> torch.Tensor:
    """(rows, tokens, channels) -> (branches, channels)."""
    each = len(values) // len(rows_of)
    if all(len(rows) == each and rows[-1] - rows[0] == each - 1 for rows in rows_of.values()):
        firsts = [int(rows[0]) for rows in rows_of.values()]
        if firsts == sorted(firsts):  # all rows of one branch, then all of the next
            return values.reshape(len(rows_of), -1, values.shape[-1]).sum(1)
    return torch.stack([values[rows].sum((0, 1)) for rows in rows_of.values()])
