"""One metric of an evaluation as a panel: curves along a number, a map of two, or a dot a variant.

In each stand the lines that a number is read against: the baseline, the baseline with other seeds, and noise. What is
far from the variants stands beyond a break of the axis, so that they have the room.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from surgery.experiment.controls import BASELINE, NOISE, RESEEDED
from surgery.metrics.intervals import Interval
from surgery.report.broken_axis import LEAST, break_axis, find_breaks
from surgery.report.evaluated import Measured, MeasuredMetric, MeasuredRow
from surgery.report.panels import (
    SMALL,
    Scale,
    add_color_bar,
    color_scale,
    draw_cells,
    log_ticks,
    style_axes,
    tick_positions,
)
from surgery.report.profile_figures import LINES, spans_decades
from surgery.report.sweep_forms import CurveSet, PairMap
from surgery.report.themes import Theme

MARKERS = ("o", "s", "^", "D", "v")
SPREAD = 0.36  # of the step between two values, for the curves of one panel
REFERENCES = {BASELINE: "--", RESEEDED: "-.", NOISE: ":"}  # the lines that numbers are read against
TOLD = {BASELINE: "baseline", RESEEDED: "baseline, other seeds", NOISE: "noise"}
INCHES_A_TICK = 0.24
ALIKE = 1e-6  # of the largest value: what differs by less has one colour


@dataclass(frozen=True)
class Reference:
    """A line across a panel."""

    name: str
    value: float

    def style(self, theme: Theme) -> dict[str, Any]:
        """How the line is drawn."""
        return {"color": theme.ink, "linestyle": REFERENCES[self.name], "linewidth": 1.0}


def references_of(measured: Measured, metric: MeasuredMetric) -> list[Reference]:
    """The lines of a metric, of the rows that have a finite number of it."""
    found = [(name, measured.number(name, metric)) for name in REFERENCES]
    return [Reference(name, number.value) for name, number in found if number is not None and np.isfinite(number.value)]


def numbers_of(rows: Sequence[MeasuredRow], metric: MeasuredMetric) -> list[Interval]:
    """The finite numbers that rows have of a metric."""
    found = [row.numbers[metric.name] for row in rows if metric.name in row.numbers]
    return [number for number in found if np.isfinite(number.value)]


def draw_curves(axes: Axes, measured: Measured, form: CurveSet, metric: MeasuredMetric, theme: Theme) -> None:
    """A line a curve with the intervals of its points, and the references across."""
    style_axes(axes, theme, title=metric.head, x=form.axis, y=metric.better)
    low, high = form.ends
    width = axes.figure.get_figure(root=True).get_size_inches()[0]
    places = [place for curve in form.curves for place, _ in curve.points]
    is_whole = all(float(place).is_integer() for place in places)
    step = 1.0 if is_whole else (high - low) / max(1, len(set(places)) - 1)
    for number, curve in enumerate(form.curves):
        shift = SPREAD * step * ((number + 0.5) / len(form.curves) - 0.5) if len(form.curves) > 1 else 0.0
        points = [
            (place + shift, row.numbers[metric.name]) for place, row in curve.points if metric.name in row.numbers
        ]
        draw_points(axes, points, curve_style(number, theme))
    axes.set_xlim(low - 0.6 * step, high + 0.6 * step)
    if is_whole:
        count = int(high - low) + 1
        axes.set_xticks([low + place for place in tick_positions(count, max(2, int(width / INCHES_A_TICK)))])
    _scale_values(axes, measured, numbers_of(form.rows, metric), metric, theme)
    axes.grid(axis="y", color=theme.faint, linewidth=0.4)


def draw_points(axes: Axes, points: Sequence[tuple[float, Interval]], style: dict[str, Any]) -> None:
    """Values with their intervals, joined."""
    values = [number.value if np.isfinite(number.value) else np.nan for _, number in points]
    axes.plot([place for place, _ in points], values, **style)
    ends = [(place, number.low, number.high) for place, number in points]
    sure = [(place, low, high) for place, low, high in ends if low is not None and high is not None]
    if sure:
        axes.vlines(*zip(*sure, strict=True), color=style["color"], linewidth=1.3, alpha=0.55)


def curve_style(number: int, theme: Theme) -> dict[str, Any]:
    """How a curve looks: a colour and a sign of its own, and once these are used up, another dash."""
    dash, color = divmod(number, len(theme.series))
    return {
        "color": theme.series[color],
        "linestyle": LINES[dash % len(LINES)],
        "marker": MARKERS[color % len(MARKERS)],
        "markersize": 3.4,
        "linewidth": 1.1,
    }


def _scale_values(
    axes: Axes, measured: Measured, numbers: Sequence[Interval], metric: MeasuredMetric, theme: Theme
) -> None:
    """The axis of the values: logarithmic where a few dwarf the others, broken before what is far; the references."""
    lines = references_of(measured, metric)
    values = np.array([number.value for number in numbers])
    if not values.size:
        return
    if not metric.higher_is_better and spans_decades(values):
        axes.set_yscale("log")
        locator, formatter = log_ticks(float(values.min()), float(values.max()))
        axes.yaxis.set_major_locator(locator)
        axes.yaxis.set_major_formatter(formatter)
        lines = [line for line in lines if line.value > 0]
    else:
        far = [line.value for line in lines]
        break_axis(axes, "y", find_breaks(_ends_of(numbers), far), theme, shown=far)
    for line in lines:
        axes.axhline(line.value, **line.style(theme), zorder=1)


def _ends_of(numbers: Sequence[Interval]) -> list[float]:
    """All values, and the ends of their intervals."""
    found = [end for number in numbers for end in (number.value, number.low, number.high)]
    return [end for end in found if end is not None and np.isfinite(end)]


def draw_map(
    figure: Figure | SubFigure, axes: Axes, form: PairMap, metric: MeasuredMetric, norm: Normalize, theme: Theme
) -> None:
    """Cells by two numbers; those that no variant has are grey."""
    xs, ys = (sorted({cell[axis] for cell in form.cells}) for axis in (0, 1))
    cells = np.full((len(ys), len(xs)), np.nan)
    for (x, y), row in form.cells.items():
        if metric.name in row.numbers:
            cells[ys.index(y), xs.index(x)] = row.numbers[metric.name].value
    style_axes(axes, theme, title=form.label, x=form.x, y=form.y)
    image = draw_cells(axes, cells, norm, theme)
    for places, set_ticks in ((xs, axes.set_xticks), (ys, axes.set_yticks)):
        shown = list(tick_positions(len(places), 14))
        set_ticks(shown, [f"{places[number]:g}" for number in shown])
    add_color_bar(figure, image, axes, theme, f"{metric.head} ({metric.better})", pad=0.02, aspect=16)


def draw_curve_map(
    figure: Figure | SubFigure, axes: Axes, form: CurveSet, metric: MeasuredMetric, theme: Theme, inches: float
) -> None:
    """The same curves as a map: the number by the curve, such as layer by component."""
    low, high = form.ends
    cells = np.full((len(form.curves), int(high - low) + 1), np.nan)
    for number, curve in enumerate(form.curves):
        for place, row in curve.points:
            if metric.name in row.numbers:
                cells[number, int(place - low)] = row.numbers[metric.name].value
    style_axes(axes, theme, title=metric.head, x=form.axis)
    image = draw_cells(axes, cells, norm_of(cells, metric), theme)
    ticks = tick_positions(cells.shape[1], max(2, int(inches / INCHES_A_TICK)))
    axes.set_xticks(list(ticks), [f"{low + tick:g}" for tick in ticks])
    axes.set_yticks(range(len(form.curves)), [curve.label for curve in form.curves])
    axes.invert_yaxis()
    add_color_bar(figure, image, axes, theme, metric.better, pad=0.02, aspect=max(6, 4 * len(form.curves)))


def norm_of(cells: Any, metric: MeasuredMetric) -> Normalize:
    """The colours of all cells; logarithmic where a few dwarf the others."""
    found = np.asarray(cells, dtype=np.float64)
    finite = found[np.isfinite(found)]
    if finite.size and np.ptp(finite) <= ALIKE * np.abs(finite).max():
        middle, half = float(finite.mean()), max(LEAST * float(np.abs(finite).max()), 1e-12) / 2
        return Normalize(middle - half, middle + half)
    scale: Scale = "log" if not metric.higher_is_better and spans_decades(found) else "linear"
    return color_scale(found, scale)


def draw_dots(
    axes: Axes,
    measured: Measured,
    rows: Sequence[MeasuredRow | None],
    metric: MeasuredMetric,
    theme: Theme,
    *,
    names: bool,
) -> None:
    """A dot a row with its interval, from above; None is a gap, where rows are left out."""
    style_axes(axes, theme, title=metric.head, x=metric.better)
    for place, row in enumerate(rows):
        number = None if row is None else row.numbers.get(metric.name)
        if row is None or number is None or not np.isfinite(number.value):
            continue
        color = theme.series[{"control": 1, "baseline": 2}.get(row.kind, 0)]
        if number.low is not None and number.high is not None:
            axes.plot([number.low, number.high], [place, place], color=color, linewidth=1.6)
        axes.plot([number.value], [place], "o", color=color, markersize=4)
    lines = [line for line in references_of(measured, metric) if line.name != BASELINE]
    numbers = numbers_of([row for row in rows if row is not None], metric)
    if numbers:
        far = [line.value for line in lines]
        break_axis(axes, "x", find_breaks(_ends_of(numbers), far), theme, shown=far, ticks=3)
    for line in lines:
        axes.axvline(line.value, **line.style(theme), zorder=1)
    labels = ["..." if row is None else row.name for row in rows]
    axes.set_yticks(range(len(rows)), labels if names else [], fontsize=SMALL)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", color=theme.faint, linewidth=0.5)


def reference_handles(
    measured: Measured, metrics: Sequence[MeasuredMetric], theme: Theme, *, with_baseline: bool = True
) -> list[Line2D]:
    """What a legend says of the lines that numbers are read against; in lists the baseline is a dot and no line."""
    names = {line.name for metric in metrics for line in references_of(measured, metric)}
    names -= set() if with_baseline else {BASELINE}
    found = [Reference(name, 0.0) for name in REFERENCES if name in names]
    return [Line2D([], [], **line.style(theme), label=TOLD[line.name]) for line in found]


def curve_handles(form: CurveSet, theme: Theme) -> list[Line2D]:
    """What a legend says of the curves."""
    return [Line2D([], [], **curve_style(number, theme), label=curve.label) for number, curve in enumerate(form.curves)]
