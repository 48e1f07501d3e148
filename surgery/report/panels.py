"""The parts that figures of profiles are made of: axes of layers and timesteps, heat maps, colour bars, labels."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from surgery.profiles.layer_profile import Array
from surgery.report.themes import COLORMAP, Theme

Scale = Literal["linear", "log"]
TICK_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
SMALL, NORMAL, LARGE = 8, 9, 11  # points
LAYER = "layer"
TIMESTEP = "timestep (0 clean, 1 noise)"


def new_figure(width: float, height: float, theme: Theme, title: str, note: str = "") -> Figure:
    """An empty figure (inches) with a title above and a note below."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=theme.paper)
    figure.suptitle(title, color=theme.ink, fontsize=LARGE)
    if note:
        figure.supxlabel(note, color=theme.ink, fontsize=SMALL)
    return figure


def style_axes(axes: Axes, theme: Theme, *, title: str = "", x: str = "", y: str = "") -> None:
    """Colours and labels."""
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.ink, labelsize=SMALL, length=2.5)
    for spine in axes.spines.values():
        spine.set_color(theme.faint)
    axes.set_title(title, color=theme.ink, fontsize=NORMAL)
    axes.set_xlabel(x, color=theme.ink, fontsize=SMALL)
    axes.set_ylabel(y, color=theme.ink, fontsize=SMALL)


def tick_positions(count: int, most: int) -> range:
    """0, step, 2 step, ... below `count`, at most `most` of them, the step as people count."""
    step = next((step for step in TICK_STEPS if count <= step * most), count)
    return range(0, count, step)


def set_layer_ticks(axes: Axes, count: int, width: float) -> None:
    """Numbers of layers below a panel of this width in inches."""
    axes.set_xticks(list(tick_positions(count, int(width / 0.24))))


def bin_labels(num_bins: int) -> list[str]:
    """`0.0-0.1` and so on: the share of the noise range that each bin is."""
    digits = max(1, len(f"{1 / num_bins:.4f}".rstrip("0")) - 2)
    edges = [f"{number / num_bins:.{digits}f}" for number in range(num_bins + 1)]
    return [f"{low}-{high}" for low, high in itertools.pairwise(edges)]


def set_bin_ticks(axes: Axes, num_bins: int, height: float) -> None:
    """Labels of timestep bins beside a panel of this height in inches."""
    labels = bin_labels(num_bins)
    positions = tick_positions(num_bins, max(2, int(height / 0.15)))
    axes.set_yticks(list(positions), [labels[number] for number in positions])


def color_scale(values: Array, scale: Scale) -> Normalize:
    """From the least to the largest value; a logarithmic one from the least that is positive."""
    finite = values[np.isfinite(values)]
    if scale == "log" and (finite > 0).any():
        low, high = float(finite[finite > 0].min()), float(finite.max())
        return LogNorm(low, max(high, low * 1.001))
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return Normalize(low, max(high, low + 1e-9))


def draw_cells(axes: Axes, values: Array, norm: Normalize, theme: Theme) -> Any:
    """Cells (rows, columns) with row 0 below; those without a value are left grey."""
    axes.set_facecolor(theme.gap)
    shown = np.ma.masked_invalid(values)
    return axes.imshow(shown, origin="lower", aspect="auto", interpolation="nearest", cmap=COLORMAP, norm=norm)


def hatch_rows(axes: Axes, rows: Sequence[int], num_columns: int, theme: Theme) -> None:
    """Mark rows in which nothing was counted."""
    for row in rows:
        place = Rectangle(
            (-0.5, row - 0.5), num_columns, 1, facecolor=theme.gap, edgecolor=theme.ink, hatch="////", linewidth=0
        )
        axes.add_patch(place)


def show_all_layers(axes: Axes, num_columns: int, num_layers: int, theme: Theme) -> None:
    """Room for layers behind the last column, so that streams that end early are drawn to the scale of the others."""
    axes.set_xlim(-0.5, num_layers - 0.5)
    low, high = axes.get_ylim()
    rest = Rectangle((num_columns - 0.5, low), num_layers - num_columns, high - low, color=theme.paper)
    axes.add_patch(rest)


def log_ticks(low: float, high: float) -> tuple[LogLocator, FuncFormatter]:
    """Ticks at 1, 2 and 5 of each decade, or more where there is hardly one, as plain numbers."""
    steps = (1, 2, 5) if high > 12 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
    return LogLocator(subs=steps), FuncFormatter(lambda value, _: f"{value:g}")


def add_color_bar(
    figure: Figure | SubFigure, image: ScalarMappable, axes: Any, theme: Theme, label: str, **options: Any
) -> None:
    """A colour bar with its label; on a logarithmic scale with ticks at 1, 2 and 5."""
    bar: Colorbar = figure.colorbar(image, ax=axes, **options)
    if isinstance(image.norm, LogNorm):
        bar.locator, bar.formatter = log_ticks(*image.get_clim())
        bar.minorlocator = NullLocator()
    else:
        bar.locator = MaxNLocator(5)
    bar.update_ticks()
    bar.set_label(label, color=theme.ink, fontsize=SMALL)
    bar.ax.tick_params(colors=theme.ink, labelsize=SMALL, length=2.5)
    outline: Any = bar.outline
    outline.set_edgecolor(theme.faint)


def spread_labels(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions in the order of `wanted`, at least `gap` apart where there is room, as near to it as that allows."""
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    placed: list[float] = []
    for position in wanted:
        placed.append(max(position, placed[-1] + gap if placed else low))
    limit = high
    for number in reversed(range(len(placed))):
        placed[number] = min(placed[number], limit)
        limit = placed[number] - gap
    return placed


@dataclass(frozen=True)
class PanelSize:
    """Inches of one panel, without what stands around it."""

    width: float
    height: float


def cells_size(num_columns: int, num_rows: int) -> PanelSize:
    """The size of a heat map of layers and timesteps: readable, and not wider than half a page."""
    return PanelSize(float(np.clip(0.15 * num_columns, 2.6, 6.4)), float(np.clip(0.2 * num_rows, 1.2, 2.2)))
