"""Spectra of sampling -> figures: power in bands against the timestep, spectra by time, when each band has settled.

The null, the model's own last latents noised forward, is dashed (or hollow) beside the model's own in each of them.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from surgery.metrics.intervals import Interval
from surgery.report.panels import SMALL, TIMESTEP, new_figure, style_axes
from surgery.report.themes import COLORMAP, Theme
from surgery.spectra.bands import Array
from surgery.spectra.trajectory import VIEWS, Settled, Trajectories, ViewCurves, intervals_of

PANEL_WIDTH, PANEL_HEIGHT = 3.5, 2.5  # inches
CYCLES = "cycles per picture"
LINEAR_UP_TO = 2.0  # log2 of a ratio of powers, on an axis that is logarithmic beyond
NUM_TIMES = 5  # of which a spectrum is drawn
COLOR_RANGES = {"light": (0.0, 0.88), "dark": (0.25, 1.0)}  # of the colour map: on each paper one of its ends is lost


def shades(count: int, theme: Theme) -> list[str]:
    """So many colours in the order of the colour map."""
    return [to_hex(matplotlib.colormaps[COLORMAP](place)) for place in np.linspace(*COLOR_RANGES[theme.name], count)]


def draw_bands(trajectories: Trajectories, class_name: str, theme: Theme) -> Figure:
    """A column a view: power in each band against the timestep, and below it how far the model's is from the null's."""
    views, shares = trajectories.views, trajectories.shares
    colors = shades(len(trajectories.bands), theme)
    title = f"Power in bands of frequency while {class_name} samples"
    figure = new_figure(PANEL_WIDTH * len(views), 2 * PANEL_HEIGHT + 1.3, theme, title)
    panels = figure.subplots(2, len(views), squeeze=False, sharex=True)
    for column, view in enumerate(views):
        above, below = panels[0, column], panels[1, column]
        style_axes(above, theme, title=VIEWS[view.name], y="power (mean square)" if column == 0 else "")
        style_axes(below, theme, x=TIMESTEP, y="log2 (model / null)" if column == 0 else "")
        for number in range(view.num_bands):
            _draw_power(above, view, number, shares, colors[number])
        _set_log_scale(above, theme)
        _draw_differences(below, view, shares, colors, theme)
    panels[0, 0].set_xlim(float(shares.max()) + 0.02, -0.02)
    labels = [f"{name} {CYCLES}" for name in trajectories.bands.names]
    handles = [Line2D([], [], color=color, label=label) for color, label in zip(colors, labels, strict=True)]
    _add_legend(figure, [*handles, *_null_handles(theme)], theme, _note(trajectories))
    return figure


def _draw_power(axes: Axes, view: ViewCurves, number: int, shares: Array, color: str) -> None:
    for power, style in ((view.power, "-"), (view.null, "--")):
        axes.plot(shares, power[:, :, number + 1].mean(axis=0), style, color=color, linewidth=1.3)


def _set_log_scale(axes: Axes, theme: Theme) -> None:
    """A logarithmic axis of powers, labelled at decades, or between them where there is hardly one."""
    axes.set_yscale("log")
    axes.tick_params(axis="y", which="minor", labelsize=SMALL, labelcolor=theme.ink, color=theme.faint)


def _draw_differences(axes: Axes, view: ViewCurves, shares: Array, colors: Sequence[str], theme: Theme) -> None:
    mean, low, high = intervals_of(view.differences())
    axes.axhline(0, color=theme.ink, linewidth=0.9, linestyle="--")
    for number in range(view.num_bands):
        axes.plot(shares, mean[:, number], color=colors[number], linewidth=1.3)
        axes.fill_between(shares, low[:, number], high[:, number], color=colors[number], alpha=0.2, linewidth=0)
    if np.abs(mean).max() > LINEAR_UP_TO:  # at pure noise the null knows nothing, and all else would be a line
        axes.set_yscale("symlog", linthresh=LINEAR_UP_TO)
        axes.yaxis.set_major_locator(FixedLocator([-20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20]))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())


def draw_rings(trajectories: Trajectories, class_name: str, theme: Theme) -> Figure:
    """A panel a view: the radial spectrum at some times, the model's and the null's."""
    views, shares = trajectories.views, trajectories.shares
    times = times_drawn(len(shares))
    colors = shades(len(times), theme)
    figure = new_figure(
        PANEL_WIDTH * len(views), PANEL_HEIGHT + 1.7, theme, f"Spectra by time while {class_name} samples"
    )
    panels = figure.subplots(1, len(views), squeeze=False)[0]
    for column, (axes, view) in enumerate(zip(panels, views, strict=True)):
        style_axes(axes, theme, title=VIEWS[view.name], x=CYCLES, y="power per frequency" if column == 0 else "")
        cycles = np.arange(1, view.rings.shape[1])
        for time, color in zip(times, colors, strict=True):
            for rings, style in ((view.rings, "-"), (view.null_rings, "--")):
                axes.plot(cycles, rings[time, 1:], style, color=color, linewidth=1.2)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        _set_log_scale(axes, theme)
    handles = [
        Line2D([], [], color=color, label=f"at {shares[time]:.2f} of the noise range" if shares[time] else "the end")
        for time, color in zip(times, colors, strict=True)
    ]
    note = f"{_note(trajectories, with_intervals=False)}\npower per frequency: 1 for white noise of variance 1"
    _add_legend(figure, [*handles, *_null_handles(theme)], theme, note)
    return figure


def times_drawn(count: int) -> list[int]:
    """A few times from the first to the last."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, NUM_TIMES))})


def draw_settled(found: Sequence[Settled], trajectories: Trajectories, class_name: str, theme: Theme) -> Figure:
    """A panel a view: when each band of the model, and of the null, has settled."""
    views = list(dict.fromkeys(one.view for one in found))
    rows = len(trajectories.bands)
    title = f"When each band has settled\n{class_name}"
    figure = new_figure(PANEL_WIDTH * max(2, len(views)), 0.32 * rows + 2.0, theme, title)
    panels = figure.subplots(1, len(views), squeeze=False, sharey=True)[0]
    for axes, view in zip(panels, views, strict=True):
        own = [one for one in found if one.view == view]
        style_axes(axes, theme, title=VIEWS[view], x=TIMESTEP, y=CYCLES if view == views[0] else "")
        for row, one in enumerate(own):
            _draw_dot(axes, one.model, row + 0.12, theme.series[0], theme.series[0])
            _draw_dot(axes, one.null, row - 0.12, theme.ink, theme.paper)
        axes.set_xlim(1.02, -0.02)
        axes.set_ylim(-0.6, rows - 0.4)
        axes.set_yticks(range(rows), trajectories.bands.names)
        axes.grid(axis="x", color=theme.faint, linewidth=0.5)
    handles = [
        Line2D([], [], color=theme.series[0], marker="o", markersize=5, label="the model"),
        Line2D([], [], color=theme.ink, marker="o", markersize=5, markerfacecolor=theme.paper, label="the null"),
    ]
    note = (
        f"{_note(trajectories)}\nfrom here on its power stays within 5% of its end, by prompt; a time is that of a step"
    )
    _add_legend(figure, handles, theme, note)
    return figure


def _draw_dot(axes: Axes, found: Interval, row: float, color: str, fill: str) -> None:
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [row, row], color=color, linewidth=1.2)
    axes.plot([found.value], [row], "o", color=color, markerfacecolor=fill, markersize=5)


def _null_handles(theme: Theme) -> list[Line2D]:
    return [
        Line2D([], [], color=theme.ink, label="the model"),
        Line2D([], [], color=theme.ink, linestyle="--", label="the null: its last latents, noised forward"),
    ]


def _note(trajectories: Trajectories, *, with_intervals: bool = True) -> str:
    num = trajectories.num_prompts
    text = f"N = {num} prompt{'s' * (num != 1)}"
    if with_intervals:
        text += ", with 95% intervals" if num > 1 else ", too few for intervals"
    beyond = next((view for view in trajectories.views if view.num_bands < len(trajectories.bands)), None)
    if beyond is not None:
        text += f"; latents of side {beyond.side} have no more than {beyond.side / 2:g} cycles"
    return text


def _add_legend(figure: Figure, handles: Sequence[Line2D], theme: Theme, note: str) -> None:
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3 if figure.get_figwidth() > 2 * PANEL_WIDTH else 2,
        fontsize=SMALL,
        frameon=False,
        labelcolor=theme.ink,
        title=note,
        title_fontsize=SMALL,
        alignment="center",
    )
    legend.get_title().set(color=theme.ink, horizontalalignment="center")
