"""The mean and variance of a component's output by channel, over tokens, online.

Deviations are summed from a mean that is near (that of the first forward), so that neither sum cancels: with
d_i = y_i - s, the mean is s + sum(d) / n and the sum of squared deviations sum(d^2) - sum(d)^2 / n
(Chan, Golub and LeVeque 1983, section 3).
"""

import torch

from surgery.profiles.layer_profile import Moments


class OutputSums:
    """The sums of one output; they stay on the device where the output is."""

    def __init__(self) -> None:
        self.count = 0.0
        self.shift: torch.Tensor | None = None
        self.total: torch.Tensor | None = None
        self.squares: torch.Tensor | None = None

    def resume(self, moments: Moments) -> None:
        """Go on from what was counted before."""
        self.count = moments.count
        self.shift, self.squares = torch.from_numpy(moments.mean.copy()), torch.from_numpy(moments.squares.copy())
        self.total = torch.zeros_like(self.shift)

    def add(self, values: torch.Tensor) -> None:
        """Count tokens (any number, channels)."""
        if not len(values):
            return
        if values.device.type == "mps":  # it has no float64
            values = values.cpu()
        if self.shift is None or self.total is None or self.squares is None:
            self.shift = values.double().mean(0)
            self.total, self.squares = torch.zeros_like(self.shift), torch.zeros_like(self.shift)
        elif self.shift.device != values.device:
            self.shift, self.total, self.squares = (v.to(values.device) for v in (self.shift, self.total, self.squares))
        deviations = values - self.shift  # in float64, whatever the values are in
        self.count += len(values)
        self.total += deviations.sum(0)
        self.squares += deviations.square_().sum(0)

    def moments(self) -> Moments:
        """What was counted until now."""
        assert self.shift is not None and self.total is not None and self.squares is not None, "something was counted"
        mean = self.shift + self.total / self.count
        squares = self.squares - self.total**2 / self.count
        return Moments(self.count, mean.cpu().numpy(), squares.clamp(min=0).cpu().numpy())
