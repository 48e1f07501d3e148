"""An evaluation as a table for a page, from the best variant to the worst."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surgery.metrics.intervals import Interval
from surgery.report.cost_figures import COSTS
from surgery.report.evaluated import Measured, MeasuredMetric, MeasuredRow
from surgery.report.evaluation_table import number_text
from surgery.report.metric_figures import ranked_rows
from surgery.report.what_matters import Finding

WORSE, BETTER = "▼", "▲"


@dataclass(frozen=True)
class Cell:
    """A number of a table: how it is written, what it is sorted by (empty without a number), and its mark."""

    text: str
    value: str = ""
    mark: str = ""


@dataclass(frozen=True)
class RankedRow:
    """A line of the table; `rank` is that of variants, 1 the best."""

    row: MeasuredRow
    rank: int | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Ranking:
    """The table: its heads (text, title), the metric that ranks first and costs last, and its lines."""

    heads: tuple[tuple[str, str], ...]
    rows: tuple[RankedRow, ...]


def rank(measured: Measured, metric: MeasuredMetric | None, findings: Sequence[Finding]) -> Ranking:
    """All rows: the variants by the metric, then the baseline and the controls."""
    marks = {(finding.row.name, finding.metric.name): finding for finding in findings}
    variants = measured.variants if metric is None else ranked_rows(measured.variants, metric)
    others = [row for row in measured.rows if row.kind != "variant"]
    costs = [name for name in COSTS if len({_share(row, name) for row in variants} - {None}) > 1]
    metrics = sorted(measured.metrics, key=lambda one: one != metric)
    heads = [(f"{one.head} {'↑' if one.higher_is_better else '↓'}", f"{one.name}; {one.better}") for one in metrics]
    heads += [(f"{name}, %", f"{name}, % of the baseline's") for name in costs]
    lines = [
        RankedRow(
            row,
            number + 1 if number < len(variants) else None,
            (
                *(_number_cell(row.numbers.get(one.name), marks.get((row.name, one.name))) for one in metrics),
                *(_cost_cell(row, name) for name in costs),
            ),
        )
        for number, row in enumerate([*variants, *others])
    ]
    return Ranking(tuple(heads), tuple(lines))


def _share(row: MeasuredRow, cost: str) -> float | None:
    return None if row.cost is None else COSTS[cost](row.cost)


def _cost_cell(row: MeasuredRow, cost: str) -> Cell:
    share = 1.0 if row.kind == "baseline" else _share(row, cost)
    return Cell("–") if share is None else Cell(f"{100 * share:.1f}", repr(share))


def _number_cell(number: Interval | None, finding: Finding | None) -> Cell:
    if number is None:
        return Cell("–")
    mark = "" if finding is None else WORSE if finding.is_worse else BETTER if finding.is_better else ""
    value = repr(number.value) if not np.isnan(number.value) else ""
    return Cell(interval_text(number), value, mark)


def interval_text(number: Interval) -> str:
    """`0.303 ±0.014`: a value and half of its interval."""
    low, high = number.low, number.high
    half = "" if low is None or high is None or low == high else f" ±{number_text((high - low) / 2)}"
    return f"{number_text(number.value)}{half}"
