"""Maps of damage -> a figure a stack: layer x timestep for each edit, and beside them what a profile says.

All maps have the same axes. Those of damage share their colours, so that edits can be compared.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from surgery.experiment.damage_agreement import Agreement, AngleMap
from surgery.experiment.damage_map import Array, Damage, DamageMap
from surgery.metrics.intervals import Interval
from surgery.report.panels import (
    LAYER,
    SMALL,
    TIMESTEP,
    PanelSize,
    add_color_bar,
    cells_size,
    color_scale,
    draw_cells,
    hatch_rows,
    new_figure,
    set_bin_ticks,
    set_layer_ticks,
    show_all_layers,
    style_axes,
)
from surgery.report.profile_figures import DISTANCE, LINES, spans_decades, stream_label
from surgery.report.themes import Theme

ERROR = "denoising error (relative)"
CORRELATION = "rank correlation over layers"
MAX_WIDTH = 16.5  # inches
AROUND_WIDTH, AROUND_HEIGHT = 1.75, 0.72  # inches of a panel for its bar, ticks and title
SPREAD = 0.5  # of a bin, for the lines of several edits

DrawPanel = Callable[[Figure, Axes], None]


def draw_damage(
    damage: Damage, stack: str, theme: Theme, angles: Sequence[AngleMap] = (), agreements: Sequence[Agreement] = ()
) -> Figure:
    """The maps of a stack, then the angular distances of its streams, then how far each agrees with the maps."""
    maps = damage.of_stack(stack)
    size = cells_size(damage.lengths[stack], damage.num_bins)
    norm = _colors(np.concatenate([found.errors for found in maps]))
    streams = [beside.stream for beside in angles]
    panels: list[DrawPanel] = [_damage_panel(found, norm, size, theme) for found in maps]
    panels += [_angle_panel(beside, streams, size, theme) for beside in angles]
    panels += [
        _agreement_panel([one for one in agreements if one.stream == stream], streams, size, theme)
        for stream in streams
    ]
    title = f"What the edit of a single layer costs\n{stack} of {damage.class_name}"
    note = _note(damage, maps, has_angles=bool(angles))
    figure = _grid(panels, size, theme, title, "" if agreements else note)
    if agreements:
        _add_legend(figure, maps, theme, note)
    return figure


def draw_damage_map(found: DamageMap, damage: Damage, theme: Theme, width: float, title: str) -> Figure:
    """One map alone, so wide (inches), with the colours of all of its stack."""
    norm = _colors(np.concatenate([each.errors for each in damage.of_stack(found.stack)]))
    size = PanelSize(width - AROUND_WIDTH, cells_size(damage.lengths[found.stack], damage.num_bins).height)
    figure = new_figure(width, size.height + AROUND_HEIGHT + 0.3, theme, "")
    figure.suptitle(title, color=theme.ink, fontsize=SMALL)
    _damage_panel(found, norm, size, theme)(figure, figure.subplots())
    return figure


def _grid(panels: Sequence[DrawPanel], size: PanelSize, theme: Theme, title: str, note: str) -> Figure:
    num_columns = max(1, min(3, len(panels), int(MAX_WIDTH / (size.width + AROUND_WIDTH))))
    num_rows = -(-len(panels) // num_columns)
    width = max(5.2, (size.width + AROUND_WIDTH) * num_columns)
    figure = new_figure(width, (size.height + AROUND_HEIGHT) * num_rows + 1.1, theme, title, note)
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number < len(panels):
            panels[number](figure, axes)
        else:
            axes.set_visible(False)
    return figure


def _colors(values: Array) -> Normalize:
    """A scale for all values, logarithmic where a few dwarf the others."""
    return color_scale(values, "log" if spans_decades(values[values > 0]) else "linear")


def _damage_panel(found: DamageMap, norm: Normalize, size: PanelSize, theme: Theme) -> DrawPanel:
    # On a logarithmic scale 0 has no colour, and would be taken for a layer that was not measured.
    cells = np.maximum(found.errors, norm.vmin or 0.0)
    return _cells_panel(found.what, cells, norm, ERROR, size, theme)


def _angle_panel(beside: AngleMap, streams: Sequence[str], size: PanelSize, theme: Theme) -> DrawPanel:
    title = f"angular distance, {stream_label(beside.stream, streams)}"
    draw = _cells_panel(title, beside.angles, _colors(beside.angles), DISTANCE, size, theme)
    empty = np.flatnonzero(np.isnan(beside.angles).all(1)).tolist()
    num_columns = int(np.flatnonzero(~np.isnan(beside.angles).all(0)).max()) + 1

    def draw_with_gaps(figure: Figure, axes: Axes) -> None:
        draw(figure, axes)
        hatch_rows(axes, empty, num_columns, theme)
        show_all_layers(axes, num_columns, beside.angles.shape[1], theme)

    return draw_with_gaps


def _cells_panel(title: str, cells: Array, norm: Normalize, unit: str, size: PanelSize, theme: Theme) -> DrawPanel:
    def draw(figure: Figure, axes: Axes) -> None:
        style_axes(axes, theme, title=title, x=LAYER, y=TIMESTEP)
        image = draw_cells(axes, cells, norm, theme)
        set_layer_ticks(axes, cells.shape[1], size.width)
        set_bin_ticks(axes, len(cells), size.height)
        add_color_bar(figure, image, axes, theme, unit, pad=0.02, aspect=16)

    return draw


def _agreement_panel(
    agreements: Sequence[Agreement], streams: Sequence[str], size: PanelSize, theme: Theme
) -> DrawPanel:
    """A line an edit: the correlation in each timestep bin, with its interval."""
    label = stream_label(agreements[0].stream, streams)

    def draw(_: Figure, axes: Axes) -> None:
        num_bins = len(agreements[0].by_bin)
        style_axes(axes, theme, title=f"damage and angle, {label}", x=CORRELATION, y=TIMESTEP)
        axes.axvline(0, color=theme.ink, linewidth=0.8)
        for number, agreement in enumerate(agreements):
            shift = SPREAD * ((number + 0.5) / len(agreements) - 0.5)
            _draw_line(axes, agreement.by_bin, shift, _line_of(number, theme))
        axes.set_xlim(-1.05, 1.05)
        axes.set_ylim(-0.5, num_bins - 0.5)
        axes.grid(axis="x", color=theme.faint, linewidth=0.5)
        set_bin_ticks(axes, num_bins, size.height)

    return draw


def _add_legend(figure: Figure, maps: Sequence[DamageMap], theme: Theme, note: str) -> None:
    """The note, and whose line is whose in the panels of correlations."""
    lines = [Line2D([], [], **_line_of(number, theme)) for number in range(len(maps))]
    legend = figure.legend(
        lines,
        [found.what for found in maps],
        loc="outside lower center",
        ncols=min(4, len(maps)),
        fontsize=SMALL,
        frameon=False,
        labelcolor=theme.ink,
        title=note,
        title_fontsize=SMALL,
        alignment="center",
    )
    legend.get_title().set(color=theme.ink, horizontalalignment="center")


def _line_of(number: int, theme: Theme) -> dict[str, Any]:
    """How the line of an edit looks: a colour of its own, and once these are used up, another dash."""
    dash, color = divmod(number, len(theme.series))
    style = LINES[dash % len(LINES)]
    return {"color": theme.series[color], "linestyle": style, "marker": "o", "markersize": 3, "linewidth": 0.9}


def _draw_line(axes: Axes, by_bin: Sequence[Interval | None], shift: float, line: dict[str, Any]) -> None:
    values = [np.nan if found is None else found.value for found in by_bin]
    axes.plot(values, np.arange(len(by_bin)) + shift, **line)
    for number, found in enumerate(by_bin):
        if found is not None and found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [number + shift] * 2, color=line["color"], linewidth=1.0, alpha=0.7)


def _note(damage: Damage, maps: Sequence[DamageMap], *, has_angles: bool) -> str:
    num = damage.num_prompts
    note = f"damage: norm(y' - y) / norm(y), y the whole model's prediction, mean over {num} prompt{'s' * (num != 1)}"
    if any(len(found.layers) < found.errors.shape[1] for found in maps):
        note += "; grey: not measured"
    if has_angles:
        note += "\nlines: Spearman's rank correlation of both, with 95% intervals over layers"
    return note
