"""The mean and variance of components' outputs by channel, over tokens, online, for each branch.

Deviations are summed from a mean that is near (that of the first forward), so that neither sum cancels: with
d_i = y_i - s, the mean is s + sum(d) / n and the sum of squared deviations sum(d^2) - sum(d)^2 / n
(Chan, Golub and LeVeque 1983, section 3).

Amid a forward an output is only copied, and counted with others when some MiB of them wait, or at the end: of small
outputs the calls take longer than the sums, most of all with several threads.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from surgery.activations.branches import TokenWeights
from surgery.activations.row_sums import where_exact
from surgery.profiles.layer_profile import Moments

WAITING_BYTES = 2**23  # of outputs that wait
TOGETHER = 2**18  # float64 values that are counted by the same calls

Output = tuple[str, str]  # the dotted name of a component, and the stream that its output is of
Weigh = Callable[[torch.Tensor], TokenWeights]  # an output (rows, tokens, channels) -> which of its tokens count


class _Waiting(NamedTuple):
    output: Output
    values: torch.Tensor
    weigh: Weigh


class OutputSums:
    """The sums of the outputs of a run; they stay on the device where the outputs are."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str, str], Moments] = {}
        self._banks: dict[tuple[tuple[str, ...], int, torch.device], _Bank] = {}
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._memory: torch.Tensor | None = None

    def resume(self, counted: Mapping[tuple[str, str, str], Moments]) -> None:
        """Go on from what was counted before, by component, stream and branch."""
        self._before = dict(counted)

    def add(self, output: Output, values: torch.Tensor, weigh: Weigh) -> None:
        """Count an output (rows, tokens, channels); the forward may write into it later.

        `weigh` is called before the forward has ended, for one of the outputs of a shape that are counted together.
        """
        size = values.nbytes
        if self._waiting_bytes + size > WAITING_BYTES:
            self.count_waiting()
        is_small = size <= WAITING_BYTES
        self._waiting.append(_Waiting(output, values.clone() if is_small else values, weigh))
        self._waiting_bytes += size
        if not is_small:
            self.count_waiting()

    def count_waiting(self) -> None:
        """Count the outputs that wait."""
        alike: dict[tuple[Weigh, torch.Size, torch.dtype, torch.device], list[_Waiting]] = {}
        for one in self._waiting:
            kind = (one.weigh, one.values.shape, one.values.dtype, one.values.device)
            alike.setdefault(kind, []).append(one)
        self.drop_waiting()
        for (weigh, shape, *_), found in alike.items():
            weights = weigh(found[0].values)
            bank = self._bank(weights, shape[2])
            number = max(1, TOGETHER // max(1, shape.numel()))
            for start in range(0, len(found), number):
                part = found[start : start + number]
                values = self._exact([one.values for one in part], weights.matrix.device)
                bank.add([one.output for one in part], values, weights)

    def drop_waiting(self) -> None:
        """Do not count the outputs that wait; those of the same forward that did not wait are counted."""
        self._waiting, self._waiting_bytes = [], 0

    def release(self) -> None:
        """Do not count the outputs that wait, and let go of all memory but that of the sums."""
        self.drop_waiting()
        self._memory = None

    def moments(self) -> dict[tuple[str, str, str], Moments]:
        """What was counted until now, by component, stream and branch."""
        found = dict(self._before)
        for (branches, *_), bank in self._banks.items():
            for output in bank.numbers:
                for branch, moments in zip(branches, bank.moments(output), strict=True):
                    key = (*output, branch)
                    found[key] = found[key] + moments if key in found else moments
        return found

    def _bank(self, weights: TokenWeights, channels: int) -> "_Bank":
        device = weights.matrix.device
        key = (weights.names, channels, device)
        if key not in self._banks:
            self._banks[key] = _Bank(len(weights.names), channels, device)
        return self._banks[key]

    def _exact(self, values: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
        """Outputs in float64 (outputs, rows * tokens, channels), in memory that is used again and again if they fit."""
        size = len(values) * values[0].numel()
        if self._memory is None or self._memory.device != device:
            self._memory = torch.empty(TOGETHER, dtype=torch.float64, device=device)
        memory = self._memory[:size] if size <= TOGETHER else self._memory.new_empty(size)
        cells = memory.view(len(values), *values[0].shape)
        for cell, value in zip(cells, values, strict=True):
            cell.copy_(where_exact(value))
        return cells.flatten(1, 2)


class _Bank:
    """The sums of outputs with as many channels, for the same branches.

    Of output number i: `shift` (i, 1, channels), the sums of deviations from it and of their squares (i, branches,
    channels), and how many tokens there were by branch.
    """

    def __init__(self, num_branches: int, channels: int, device: torch.device) -> None:
        self.numbers: dict[Output, int] = {}
        self.counts = np.empty((0, num_branches))
        empty = torch.empty(0, num_branches, channels, dtype=torch.float64, device=device)
        self.shift, self.total, self.squares = empty[:, :1], empty, empty

    def add(self, outputs: Sequence[Output], values: torch.Tensor, weights: TokenWeights) -> None:
        """Count some outputs (outputs, rows * tokens, channels), which are written over."""
        self._know(outputs, values)
        numbers = [self.numbers[output] for output in outputs]
        if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
            self._count(numbers[0], values, weights)
        else:
            for number, value in zip(numbers, values, strict=True):
                self._count(number, value[None], weights)

    def _know(self, outputs: Sequence[Output], values: torch.Tensor) -> None:
        """Give the next numbers to outputs that have none."""
        new = {output: value for output, value in zip(outputs, values, strict=True) if output not in self.numbers}
        if not new:
            return
        self.numbers.update(zip(new, range(len(self.numbers), len(self.numbers) + len(new)), strict=True))
        means = torch.stack([value.mean(0, keepdim=True) for value in new.values()])
        zeros = self.total.new_zeros(len(new), *self.total.shape[1:])
        self.shift = torch.cat([self.shift, means])
        self.total, self.squares = torch.cat([self.total, zeros]), torch.cat([self.squares, zeros])
        self.counts = np.concatenate([self.counts, np.zeros((len(new), self.counts.shape[1]))])

    def _count(self, first: int, values: torch.Tensor, weights: TokenWeights) -> None:
        """Count outputs with numbers in a row, from the first on."""
        numbers = slice(first, first + len(values))
        self.counts[numbers] += weights.counts
        matrices = weights.matrix.expand(len(values), -1, -1)
        self.total[numbers].baddbmm_(matrices, values.sub_(self.shift[numbers]))
        self.squares[numbers].baddbmm_(matrices, values.square_())

    def moments(self, output: Output) -> list[Moments]:
        """Of one output, for each branch."""
        number = self.numbers[output]
        counts = self.counts[number].tolist()
        step = self.total[number] / self.total.new_tensor(counts).clamp(min=1)[:, None]
        squares = (self.squares[number] - self.total[number] * step).clamp(min=0).cpu().numpy()
        means = (self.shift[number] + step).cpu().numpy()
        return [Moments(*parts) for parts in zip(counts, means, squares, strict=True)]
