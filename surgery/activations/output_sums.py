"""The mean and variance of components' outputs by channel, over tokens, online, for each branch.

With d_i = y_i - s, the mean is s + sum(d) / n and the sum of squared deviations sum(d^2) - sum(d)^2 / n (Chan, Golub
and LeVeque 1983, section 3). The shift s is 0 but for channels whose mean, over all tokens of the first forward, is far
from it in standard deviations: of these it is that mean, so that the second sum does not cancel.

Amid a forward a small output is only copied, and counted with others of its shape when some MiB of them wait, or at the
end: the calls take longer than the sums, most of all with several threads. A large one is counted at once.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from surgery.activations.branches import TokenWeights
from surgery.activations.row_sums import where_exact
from surgery.profiles.layer_profile import Moments

WAITING_BYTES = 2**23  # of outputs of one kind that wait
KINDS = 16  # of outputs that wait: of a shape, a dtype, a device, and the tokens that count
TOGETHER = 2**18  # float64 values that are counted by the same calls
FAR = 100.0  # standard deviations from 0, where sums of squares lose 4 of their 16 digits

Output = tuple[str, str]  # the dotted name of a component, and the stream that its output is of
Weigh = Callable[[torch.Tensor], TokenWeights]  # an output (rows, tokens, channels) -> which of its tokens count


class OutputSums:
    """The sums of the outputs of a run; they stay on the device where the outputs are."""

    def __init__(self) -> None:
        self._banks: dict[tuple[tuple[str, ...], int, torch.device], _Bank] = {}
        self._waiting: dict[tuple[Weigh, torch.Size, torch.dtype, torch.device], _Waiting] = {}
        self._memory: torch.Tensor | None = None

    def add(self, output: Output, values: torch.Tensor, weigh: Weigh) -> None:
        """Count an output (rows, tokens, channels); the forward may write into it later.

        `weigh` is called before the forward has ended, for one of the outputs of a shape that are counted together.
        """
        if values.nbytes > WAITING_BYTES:
            self._count([output], values[None], weigh)
            return
        kind = (weigh, values.shape, values.dtype, values.device)
        waiting = self._waiting.get(kind)
        if waiting is None:
            if len(self._waiting) == KINDS:
                oldest = next(iter(self._waiting))
                left = self._waiting.pop(oldest)
                self._count(left.outputs, left.memory, oldest[0])
            waiting = self._waiting[kind] = _Waiting(values)
        waiting.add(output, values)
        if len(waiting.outputs) == len(waiting.memory):
            self._count(waiting.take(), waiting.memory, weigh)

    def count_waiting(self) -> None:
        """Count the outputs that wait."""
        for (weigh, *_), waiting in self._waiting.items():
            self._count(waiting.take(), waiting.memory, weigh)

    def drop_waiting(self) -> None:
        """Do not count the outputs that wait; those of the same forward that did not wait are counted."""
        for waiting in self._waiting.values():
            waiting.take()

    def release(self) -> None:
        """Do not count the outputs that wait, and let go of all memory but that of the sums."""
        self._waiting.clear()
        self._memory = None

    def moments(self) -> dict[tuple[str, str, str], Moments]:
        """What was counted until now, by component, stream and branch."""
        found: dict[tuple[str, str, str], Moments] = {}
        for (branches, *_), bank in self._banks.items():
            for output in bank.numbers:
                for branch, moments in zip(branches, bank.moments(output), strict=True):
                    key = (*output, branch)
                    found[key] = found[key] + moments if key in found else moments
        return found

    def _count(self, outputs: Sequence[Output], values: torch.Tensor, weigh: Weigh) -> None:
        """Count the first of some values (outputs, rows, tokens, channels), as many as are named."""
        if not outputs:
            return
        weights = weigh(values[0])
        bank = self._bank(weights, values.shape[3])
        number = max(1, TOGETHER // max(1, values[0].numel()))
        for start in range(0, len(outputs), number):
            part = outputs[start : start + number]
            bank.add(part, self._exact(values[start : start + len(part)], weights.matrix.device), weights)

    def _bank(self, weights: TokenWeights, channels: int) -> "_Bank":
        device = weights.matrix.device
        key = (weights.names, channels, device)
        if key not in self._banks:
            self._banks[key] = _Bank(len(weights.names), channels, device)
        return self._banks[key]

    def _exact(self, values: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Outputs in float64 (outputs, rows * tokens, channels), in memory that is used again and again if they fit."""
        size = values.numel()
        if self._memory is None or self._memory.device != device:
            self._memory = torch.empty(TOGETHER, dtype=torch.float64, device=device)
        memory = self._memory[:size] if size <= TOGETHER else self._memory.new_empty(size)
        return memory.view(values.shape).copy_(where_exact(values)).flatten(1, 2)


class _Waiting:
    """Outputs of one kind that wait: number i is in `memory[i]`, which is used again and again."""

    def __init__(self, like: torch.Tensor) -> None:
        number = max(1, WAITING_BYTES // max(1, like.nbytes))
        self.memory = like.new_empty(number, *like.shape)
        self.outputs: list[Output] = []
        self._cells: list[torch.Tensor] = []

    def add(self, output: Output, values: torch.Tensor) -> None:
        """Copy an output; there is a place for it."""
        number = len(self.outputs)
        if number == len(self._cells):  # kept, as a view takes as long as a small copy
            self._cells.append(self.memory[number])
        self._cells[number].copy_(values)
        self.outputs.append(output)

    def take(self) -> list[Output]:
        """The outputs that wait, which wait no more."""
        outputs, self.outputs = self.outputs, []
        return outputs


class _Bank:
    """The sums of outputs with as many channels, for the same branches.

    Of output number i: `shift` (i, 1, channels), the sums of deviations from it and of their squares (i, branches,
    channels), and how many tokens there were by branch. `shifted` are the numbers whose shift is not 0.
    """

    def __init__(self, num_branches: int, channels: int, device: torch.device) -> None:
        self.numbers: dict[Output, int] = {}
        self.counts = np.empty((0, num_branches))
        empty = torch.empty(0, num_branches, channels, dtype=torch.float64, device=device)
        self.shift, self.total, self.squares = empty[:, :1], empty, empty
        self.shifted: set[int] = set()

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
        shifts = torch.stack([_find_shift(value) for value in new.values()])
        zeros = self.total.new_zeros(len(new), *self.total.shape[1:])
        self.shift = torch.cat([self.shift, shifts])
        self.shifted = set(self.shift.any(2).nonzero()[:, 0].tolist())
        self.total, self.squares = torch.cat([self.total, zeros]), torch.cat([self.squares, zeros])
        self.counts = np.concatenate([self.counts, np.zeros((len(new), self.counts.shape[1]))])

    def _count(self, first: int, values: torch.Tensor, weights: TokenWeights) -> None:
        """Count outputs with numbers in a row, from the first on."""
        numbers = slice(first, first + len(values))
        self.counts[numbers] += weights.counts
        matrices = weights.matrix.expand(len(values), -1, -1)
        if not self.shifted.isdisjoint(range(first, first + len(values))):
            values.sub_(self.shift[numbers])
        self.total[numbers].baddbmm_(matrices, values)
        self.squares[numbers].baddbmm_(matrices, values.square_())

    def moments(self, output: Output) -> list[Moments]:
        """Of one output, for each branch."""
        number = self.numbers[output]
        counts = self.counts[number].tolist()
        step = self.total[number] / self.total.new_tensor(counts).clamp(min=1)[:, None]
        squares = (self.squares[number] - self.total[number] * step).clamp(min=0).cpu().numpy()
        means = (self.shift[number] + step).cpu().numpy()
        return [Moments(*parts) for parts in zip(counts, means, squares, strict=True)]


def _find_shift(values: torch.Tensor) -> torch.Tensor:
    """Of the channels of an output (rows * tokens, channels): their means (1, channels) where these are far from 0."""
    if not len(values):
        return values.new_zeros(1, values.shape[1])
    variance, mean = torch.var_mean(values, 0, correction=0, keepdim=True)
    return torch.where(mean.square() > FAR**2 * variance, mean, 0)
