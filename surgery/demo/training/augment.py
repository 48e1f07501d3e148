"""Pictures -> pictures that were moved, coloured, blurred, made noisy and partly covered, each by its own amount."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

BLUR_REACH_PX = 9  # half the width of the widest kernel


@dataclass(frozen=True)
class Limits:
    """The greatest amounts; each picture draws its own below them. `share` of the pictures get each kind of damage."""

    shift_px: float = 4.0
    turn_rad: float = 0.15
    zoom: float = 0.12
    colour: float = 0.15
    blur_px: float = 3.0  # standard deviation
    noise: float = 0.3  # standard deviation, where white minus black is 1
    cover_px: float = 32.0  # the side of a covered square
    share: float = 0.5


def augment(pictures: torch.Tensor, limits: Limits, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3, H, W) in [-1, 1] -> the same, changed, and (N, 3): how far blur, noise and cover went to their limits."""
    damage = draw_damage(len(pictures), limits.share, generator)
    moved = colour(move(pictures, limits, generator), limits.colour, generator)
    blurred = blur(moved, damage[:, 0] * limits.blur_px)
    covered = cover(blurred, damage[:, 2] * limits.cover_px, generator)
    return add_noise(covered, damage[:, 1] * limits.noise, generator), damage


def draw_damage(num_pictures: int, share: float, generator: torch.Generator) -> torch.Tensor:
    """(N, 3) amounts in [0, 1]; each is 0 but for `share` of the pictures."""
    amounts = torch.rand(num_pictures, 3, generator=generator)
    return amounts * (torch.rand(num_pictures, 3, generator=generator) < share)


def uniform(shape: tuple[int, ...], limit: float, generator: torch.Generator) -> torch.Tensor:
    """Numbers between -limit and limit."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * limit


def move(pictures: torch.Tensor, limits: Limits, generator: torch.Generator) -> torch.Tensor:
    """Turn, zoom and shift on a white ground."""
    count, _, _, width = pictures.shape
    angle = uniform((count,), limits.turn_rad, generator)
    zoom = 1 + uniform((count,), limits.zoom, generator)
    shift = uniform((count, 2), 2 * limits.shift_px / width, generator)
    rows = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], dim=1) * zoom[:, None]
    matrices = torch.cat([rows.view(count, 2, 2), shift[:, :, None]], dim=2)
    grid = F.affine_grid(matrices, list(pictures.shape), align_corners=False)
    return 1 - F.grid_sample(1 - pictures, grid, align_corners=False)  # outside is 0, which is white


def colour(pictures: torch.Tensor, limit: float, generator: torch.Generator) -> torch.Tensor:
    """Scale the ink of each channel, so that white stays white."""
    factors = 1 + uniform((len(pictures), 3, 1, 1), limit, generator)
    return (1 - (1 - pictures) * factors).clamp(-1, 1)


def blur(pictures: torch.Tensor, sigma_px: torch.Tensor) -> torch.Tensor:
    """A Gaussian of its own standard deviation (N,) for each picture; edges are repeated."""
    count, channels, height, width = pictures.shape
    steps = torch.arange(-BLUR_REACH_PX, BLUR_REACH_PX + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (steps / sigma_px.clamp(min=0.05)[:, None]) ** 2)  # N x K
    kernels = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)  # NC x K
    padded = F.pad(pictures, [BLUR_REACH_PX] * 4, mode="replicate").flatten(0, 1)[None]  # 1 x NC x (H + 18) x (W + 18)
    rows = F.conv2d(padded, kernels[:, None, None, :], groups=count * channels)
    both = F.conv2d(rows, kernels[:, None, :, None], groups=count * channels)
    return both.view(count, channels, height, width)


def add_noise(pictures: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """White noise of its own standard deviation (N,) for each picture, where white minus black is 1; then clipped."""
    noise = torch.randn(pictures.shape, generator=generator) * 2
    return (pictures + noise * sigma[:, None, None, None]).clamp(-1, 1)


def cover(pictures: torch.Tensor, side_px: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A square of one colour over each picture, of side (N,), somewhere."""
    count, _, height, width = pictures.shape
    top = torch.rand(count, generator=generator) * (height - side_px)
    left = torch.rand(count, generator=generator) * (width - side_px)
    rows, columns = torch.arange(height)[None] + 0.5, torch.arange(width)[None] + 0.5
    down = (rows > top[:, None]) & (rows < (top + side_px)[:, None])  # N x H
    across = (columns > left[:, None]) & (columns < (left + side_px)[:, None])  # N x W
    covered = (down[:, :, None] & across[:, None, :])[:, None]
    return torch.where(covered, uniform((count, 3, 1, 1), 1.0, generator), pictures)
