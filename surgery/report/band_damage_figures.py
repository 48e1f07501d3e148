"""What surgery did to bands of frequency -> a map of rows and bands, and whether detail or layout suffers."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from surgery.report.panels import SMALL, add_color_bar, draw_cells, new_figure, style_axes
from surgery.report.spectrum_figures import CYCLES
from surgery.report.themes import Theme
from surgery.spec.nearest import shorten
from surgery.spectra.band_damage import BandDamage, lean
from surgery.spectra.trajectory import LATENTS, PICTURES, intervals_of

OF_VIEW = {LATENTS: "last latents", PICTURES: "pictures"}
DIFFERENCE = "difference"
ROW_HEIGHT, CELL_WIDTH = 0.24, 0.72  # inches: a cell has room for its number and half of its interval
MAX_NAME = 36
LEAST_SCALE = 0.01  # of the colours, where nothing differs


def draw_band_damage(
    damages: Mapping[str, Mapping[str, BandDamage]], bands: Sequence[str], class_name: str, theme: Theme
) -> Figure:
    """A map a view, its rows those of the spectra, and beside the last how much more detail suffers than layout."""
    names = list(damages)
    views = list(next(iter(damages.values())))
    widths = [CELL_WIDTH * next(iter(damages.values()))[view].difference.shape[1] + 0.9 for view in views]
    num = len(next(iter(damages.values()))[views[0]].difference)
    note = (
        "difference from the baseline of the same prompts: 0 none, 1 as two unrelated pictures\ndetail - layout: the "
    )
    note += f"upper half of the bands less the lower; N = {num}" + ", with 95% intervals" * (num > 1)
    width = sum(widths) + 2.2 + 0.085 * min(MAX_NAME, max(map(len, names)))
    title = f"Which bands of frequency surgery damages\n{class_name}"
    figure = new_figure(max(5.2, width), ROW_HEIGHT * max(6, len(names)) + 1.9, theme, title, note)
    panels = figure.subplots(1, len(views) + 1, squeeze=False, sharey=True, width_ratios=[*widths, 1.7])[0]
    most = max(float(damage.difference.mean(axis=0).max()) for row in damages.values() for damage in row.values())
    norm = Normalize(0, max(most, LEAST_SCALE))
    for axes, view in zip(panels, views, strict=False):
        _draw_map(figure, axes, [damages[name][view] for name in names], bands, OF_VIEW[view], norm, theme)
    panels[0].set_yticks(range(len(names)), [shorten(name, MAX_NAME) for name in names])
    panels[0].invert_yaxis()
    _draw_lean(panels[-1], [damages[name][views[-1]] for name in names], theme)
    return figure


def _draw_map(
    figure: Figure,
    axes: Axes,
    rows: Sequence[BandDamage],
    bands: Sequence[str],
    title: str,
    norm: Normalize,
    theme: Theme,
) -> None:
    found = [intervals_of(row.difference) for row in rows]
    cells = np.stack([mean for mean, _, _ in found])
    halves = np.stack([(high - low) / 2 for _, low, high in found])
    style_axes(axes, theme, title=title, x=CYCLES)
    image = draw_cells(axes, cells, norm, theme)
    for (row, column), value in np.ndenumerate(cells):
        half = halves[row, column]
        shown = f"{value:.2f}" + ("" if np.isnan(half) else f"±{half:.2f}")
        color = "white" if norm(value) < 0.55 else "black"
        axes.text(column, row, shown, ha="center", va="center", fontsize=6, color=color)
    axes.set_xticks(range(cells.shape[1]), bands[: cells.shape[1]])
    add_color_bar(figure, image, axes, theme, DIFFERENCE, pad=0.02, aspect=24)


def _draw_lean(axes: Axes, rows: Sequence[BandDamage], theme: Theme) -> None:
    style_axes(axes, theme, title="detail - layout", x=DIFFERENCE)
    axes.axvline(0, color=theme.ink, linewidth=0.9, linestyle="--")
    for number, row in enumerate(rows):
        found = lean(row)
        if found is None:
            continue
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [number, number], color=theme.series[0], linewidth=1.2)
        axes.plot([found.value], [number], "o", color=theme.series[0], markersize=3.5)
    axes.tick_params(labelsize=SMALL)
    axes.grid(axis="x", color=theme.faint, linewidth=0.5)
