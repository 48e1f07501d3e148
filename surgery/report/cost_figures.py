"""Quality against cost: a dot a variant, and the front of those that no other beats in both."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from surgery.experiment.controls import BASELINE
from surgery.experiment.metric_table import LATENCY
from surgery.metrics.intervals import Interval
from surgery.plan.cost import Cost
from surgery.report.broken_axis import break_axis, find_breaks
from surgery.report.evaluated import Measured, MeasuredMetric, MeasuredRow
from surgery.report.metric_figures import WIDTH, file_name, head_of
from surgery.report.panels import SMALL, new_figure, style_axes
from surgery.report.themes import Theme

COSTS: dict[str, Callable[[Cost], float | None]] = {
    "block executions": lambda cost: cost.executions_share,
    "FLOPs of the blocks": lambda cost: cost.flops_share,
    "parameters": lambda cost: cost.parameters_after / cost.parameters_before if cost.parameters_before else None,
}
ShareOf = Callable[[MeasuredRow], Interval | None]
HEIGHT = 3.3
MOST_NUMBERED = 12  # dots of a front with numbers beside them


@dataclass(frozen=True)
class Priced:
    """A variant, or the baseline: its share of the baseline's cost, with the ends of an interval where that was
    measured, and its number.
    """

    name: str
    share: float
    value: float
    ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class CostFigure:
    """A figure, what it shows, and the front: from the cheapest to the best."""

    name: str
    figure: Figure
    cost: str
    front: tuple[Priced, ...]


def cost_figures(measured: Measured, metric: MeasuredMetric, theme: Theme) -> Iterator[CostFigure]:
    """A figure for each kind of cost in which variants differ from the baseline."""
    for cost, share_of in costs_of(measured).items():
        points = priced_rows(measured, metric, share_of)
        if len({point.share for point in points}) > 1 and metric.key != LATENCY:
            front = front_of(points, higher_is_better=metric.higher_is_better)
            figure = _draw(measured, metric, cost, points, front, theme)
            yield CostFigure(f"cost_{cost.replace(' ', '_').lower()}_{file_name(metric)}", figure, cost, tuple(front))


def costs_of(measured: Measured) -> dict[str, ShareOf]:
    """What a row costs, by name: as planned, and as timed where it was."""
    found = {name: _planned_share(share_of) for name, share_of in COSTS.items()}
    timed = next((one for one in measured.metrics if one.key == LATENCY), None)
    return found if timed is None else {**found, "measured latency": _timed_share(timed)}


def _planned_share(share_of: Callable[[Cost], float | None]) -> ShareOf:
    def share_of_row(row: MeasuredRow) -> Interval | None:
        share = 1.0 if row.name == BASELINE else None if row.cost is None else share_of(row.cost)
        return None if share is None else Interval(share, None, None, 1, "planned")

    return share_of_row


def _timed_share(timed: MeasuredMetric) -> ShareOf:
    def share_of_row(row: MeasuredRow) -> Interval | None:
        number = row.numbers.get(timed.name)
        return None if number is None or not np.isfinite(number.value) else number.times(0.01)

    return share_of_row


def priced_rows(measured: Measured, metric: MeasuredMetric, share_of: ShareOf) -> list[Priced]:
    """All variants with a cost and a finite number, and the baseline, which costs 1."""
    found = []
    for row in measured.rows:
        number, share = row.numbers.get(metric.name), share_of(row)
        if row.kind != "control" and number is not None and share is not None and np.isfinite(number.value):
            ends = None if share.low is None or share.high is None else (share.low, share.high)
            found.append(Priced(row.name, share.value, number.value, ends))
    return found


def front_of(points: Sequence[Priced], *, higher_is_better: bool) -> list[Priced]:
    """The points that no other beats: as cheap and better, or cheaper and as good. From the cheapest."""
    sign = -1 if higher_is_better else 1
    found: list[Priced] = []
    for point in sorted(points, key=lambda one: (one.share, sign * one.value)):
        is_equal = bool(found) and (point.share, point.value) == (found[-1].share, found[-1].value)
        if not found or is_equal or sign * point.value < sign * found[-1].value:
            found.append(point)
    return found


def _draw(
    measured: Measured,
    metric: MeasuredMetric,
    cost: str,
    points: Sequence[Priced],
    front: Sequence[Priced],
    theme: Theme,
) -> Figure:
    figure = new_figure(WIDTH, HEIGHT, theme, "")
    figure.suptitle(head_of(measured, measured.variants), color=theme.ink, fontsize=SMALL)
    axes = figure.subplots()
    style_axes(axes, theme, title=f"{metric.name} against {cost}", x=f"{cost}, % of the baseline's", y=metric.better)
    others = [point for point in points if point not in front]
    axes.plot(*_places(others), "o", color=theme.series[0], markersize=3.5, alpha=0.6, label="variants")
    color = theme.series[1]
    axes.plot(*_places(front), "D-", color=color, markersize=5, linewidth=1.0, label="the Pareto front")
    for point in points:
        if point.ends is not None:
            low, high = point.ends
            axes.hlines(point.value, 100 * low, 100 * high, color=theme.faint, linewidth=0.8, zorder=0)
    for number, point in enumerate(front[:MOST_NUMBERED], start=1):
        axes.annotate(
            *(str(number), (100 * point.share, point.value), (4, 4)),
            textcoords="offset points",
            color=theme.ink,
            fontsize=SMALL,
        )
    variants = [point.value for point in points if point.name != BASELINE] or [points[0].value]
    baseline = [point.value for point in points if point.name == BASELINE]
    break_axis(axes, "y", find_breaks(variants, baseline), theme, shown=baseline)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(color=theme.faint, linewidth=0.4)
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False, labelcolor=theme.ink)
    return figure


def _places(points: Sequence[Priced]) -> tuple[list[float], list[float]]:
    return [100 * point.share for point in points], [point.value for point in points]
