"""An evaluation -> a figure a metric, in the form that its variants have; model, N and cost are in the title."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from surgery.report.evaluated import Measured, MeasuredMetric, MeasuredRow
from surgery.report.metric_panels import (
    curve_handles,
    draw_curve_map,
    draw_curves,
    draw_dots,
    draw_map,
    norm_of,
    numbers_of,
    reference_handles,
)
from surgery.report.panels import NORMAL, SMALL, new_figure
from surgery.report.sweep_forms import CurveSet, Form, PairMap, RowList, forms_of
from surgery.report.themes import Theme

WIDTH = 4.8  # inches: its text can be read on a phone, and two stand side by side on a desk
CURVES_HEIGHT, MAP_HEIGHT, ROW_HEIGHT = 3.2, 2.6, 0.21
MAX_ROWS = 40  # of a list: the best and the worst halves of more


@dataclass(frozen=True)
class MetricFigure:
    """A figure and what it shows, in words; `name` is that of its file."""

    name: str
    figure: Figure
    caption: str


def figures_of(measured: Measured, metric: MeasuredMetric, theme: Theme) -> Iterator[MetricFigure]:
    """The figures of a metric: of each form of the variants that have numbers of it."""
    forms = [form for form in forms_of(measured.variants) if numbers_of(form.rows, metric)]
    for number, form in enumerate(forms):
        behind = f"-{number + 1}" if len(forms) > 1 else ""
        yield from _figures_of_form(measured, form, metric, theme, behind)


def _figures_of_form(
    measured: Measured, form: Form, metric: MeasuredMetric, theme: Theme, behind: str
) -> Iterator[MetricFigure]:
    stem, title = f"{file_name(metric)}{behind}", head_of(measured, form.rows)
    match form:
        case CurveSet():
            figure = _new(CURVES_HEIGHT, title, theme)
            axes = figure.subplots()
            draw_curves(axes, measured, form, metric, theme)
            axes.set_title(metric.name, fontsize=NORMAL)
            _add_legend(figure, measured, form, metric, theme)
            yield MetricFigure(f"{stem}-curves", figure, f"By {form.axis}, with 95% intervals.")
            if len(form.curves) > 1 and form.num_layers:
                figure = _new(0.95 + 0.34 * len(form.curves), title, theme)
                axes = figure.subplots()
                draw_curve_map(figure, axes, form, metric, theme, WIDTH - 1.8)
                axes.set_title(metric.name, fontsize=NORMAL)
                yield MetricFigure(f"{stem}-map", figure, f"By {form.axis} and edit. Grey: not measured.")
        case PairMap():
            figure = _new(MAP_HEIGHT + 0.6, title, theme)
            numbers = [number.value for number in numbers_of(form.rows, metric)]
            axes = figure.subplots()
            draw_map(figure, axes, form, metric, norm_of(numbers, metric), theme)
            axes.set_title(f"{metric.name}, {form.label}", fontsize=NORMAL)
            yield MetricFigure(f"{stem}-map", figure, f"By {form.x} and {form.y}. Grey: not measured.")
        case RowList():
            rows = shown_rows(form.rows, metric, MAX_ROWS)
            figure = _new(1.1 + ROW_HEIGHT * len(rows), title, theme)
            axes = figure.subplots()
            draw_dots(axes, measured, rows, metric, theme, names=True)
            axes.set_title(metric.name, fontsize=NORMAL)
            _add_legend(figure, measured, None, metric, theme)
            yield MetricFigure(f"{stem}-dots", figure, f"With 95% intervals{left_out(form.rows, rows)}.")


def _new(height: float, title: str, theme: Theme) -> Figure:
    figure = new_figure(WIDTH, height, theme, "")
    figure.suptitle(title, color=theme.ink, fontsize=SMALL)
    return figure


def _add_legend(
    figure: Figure, measured: Measured, form: CurveSet | None, metric: MeasuredMetric, theme: Theme
) -> None:
    handles = [
        *([] if form is None else curve_handles(form, theme)),
        *reference_handles(measured, [metric], theme, with_baseline=form is not None),
    ]
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=2 if max(len(str(handle.get_label())) for handle in handles) > 24 else 3,
            fontsize=SMALL,
            frameon=False,
            labelcolor=theme.ink,
            columnspacing=1.2,
        )


def head_of(measured: Measured, rows: Sequence[MeasuredRow]) -> str:
    """`PixArtTransformer2DModel, N = 64, 92 to 99% of the FLOPs of its blocks`: model, prompts, cost."""
    return ", ".join(filter(None, [measured.class_name, f"N = {len(measured.prompts)}", cost_text(rows)]))


def cost_text(rows: Sequence[MeasuredRow]) -> str:
    """What variants cost, as a share of the blocks' FLOPs, or of their executions where these are not known."""
    costs = [row.cost for row in rows if row.cost is not None]
    for name, shares in (
        ("FLOPs", [cost.flops_share for cost in costs]),
        ("executions", [cost.executions_share for cost in costs]),
    ):
        known = [share for share in shares if share is not None]
        if known:
            ends = dict.fromkeys(f"{100 * end:.0f}" for end in (min(known), max(known)))
            return f"{' to '.join(ends)}% of the {name} of its blocks"
    return ""


def shown_rows(rows: Sequence[MeasuredRow], metric: MeasuredMetric, most: int) -> list[MeasuredRow | None]:
    """All rows, or where there are more than `most`, the best and the worst by the metric, and None between them."""
    if len(rows) <= most:
        return list(rows)
    ranked = ranked_rows(rows, metric)
    half = max(1, (most - 1) // 2)
    return [*ranked[:half], None, *ranked[-half:]]


def ranked_rows(rows: Sequence[MeasuredRow], metric: MeasuredMetric) -> list[MeasuredRow]:
    """The rows from the best to the worst; those without a number at the end."""

    def place(row: MeasuredRow) -> float:
        number = row.numbers.get(metric.name)
        value = np.nan if number is None else number.value
        return np.inf if np.isnan(value) else -value if metric.higher_is_better else value

    return sorted(rows, key=place)


def left_out(rows: Sequence[MeasuredRow], shown: Sequence[MeasuredRow | None]) -> str:
    """What a caption says of rows that are not drawn."""
    names = {row.name for row in shown if row is not None}
    num = sum(row.name not in names for row in rows)
    return f"; the best and the worst, {num} between them are left out" if num else ""


def file_name(metric: MeasuredMetric) -> str:
    """The name of a metric as a part of a file's name: `kid_x_1000_inception_v3`."""
    letters = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in metric.name.lower())
    return "_".join(letters.split()) or "metric"
