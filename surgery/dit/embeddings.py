"""Pictures, positions, times and labels -> the channels that blocks work on."""

import math

import torch
from torch import nn
from torch.nn import functional as F

MAX_PERIOD = 10_000
TIME_CHANNELS = 256  # of the sinusoids of a timestep


def patchify(pictures: torch.Tensor, patch_size: int) -> torch.Tensor:
    """(batch, channels, height, width) -> (batch, tokens, channels x patch x patch), a token a patch, by rows."""
    pictures = pictures.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
    return pictures.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(tokens: torch.Tensor, rows: int, patch_size: int) -> torch.Tensor:
    """The inverse; `rows` of patches say how many of the tokens are in a column."""
    patches = tokens.unflatten(2, (-1, patch_size, patch_size)).unflatten(1, (rows, -1))
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def sinusoids(values: torch.Tensor, channels: int) -> torch.Tensor:
    """(n,) -> (n, channels) in float32: cosines of v w_i, then sines, w_i = MAX_PERIOD ** (-i / (channels / 2))."""
    half = channels // 2
    frequencies = torch.exp(torch.arange(half, device=values.device) * (-math.log(MAX_PERIOD) / half))
    angles = values.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def grid_positions(rows: int, columns: int, channels: int, device: torch.device | None = None) -> torch.Tensor:
    """(rows x columns, channels): sinusoids of the row of a patch, in half of the channels, and of its column."""
    of_rows = sinusoids(torch.arange(rows, device=device), channels // 2)
    of_columns = sinusoids(torch.arange(columns, device=device), channels // 2)
    halves = of_rows[:, None].expand(-1, columns, -1), of_columns[None].expand(rows, -1, -1)
    return torch.cat(halves, dim=-1).flatten(0, 1)


class TimeEmbedding(nn.Module):
    """A timestep -> channels: Linear(SiLU(Linear(sinusoids)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(TIME_CHANNELS, channels)
        self.linear_2 = nn.Linear(channels, channels)

    def forward(self, timestep: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(batch,), as the scheduler counts -> (batch, channels) of a dtype."""
        return self.linear_2(F.silu(self.linear_1(sinusoids(timestep, TIME_CHANNELS).to(dtype))))
