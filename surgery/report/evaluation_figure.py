"""An evaluation on one sheet: a panel a metric, in the form that its variants have, never taller than two screens."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure, SubFigure

from surgery.experiment.controls import NOISE, RESEEDED
from surgery.files import write_whole
from surgery.report.evaluated import Measured, MeasuredMetric, MeasuredRow, measured_from_json
from surgery.report.metric_figures import head_of, left_out, shown_rows
from surgery.report.metric_panels import (
    curve_handles,
    draw_curves,
    draw_dots,
    draw_map,
    norm_of,
    numbers_of,
    reference_handles,
)
from surgery.report.panels import SMALL, new_figure
from surgery.report.plot_profile import DOTS_PER_INCH, render
from surgery.report.sweep_forms import CurveSet, Form, PairMap, RowList, forms_of
from surgery.report.themes import LIGHT, Theme

if TYPE_CHECKING:
    from surgery.experiment.evaluation import Evaluation

TWO_SCREENS = 2 * 1080 / DOTS_PER_INCH  # inches
PANEL_WIDTH, PANEL_HEIGHT, ROW_HEIGHT = 4.2, 2.5, 0.2
AROUND_FORM, AROUND_ROWS, AROUND_FIGURE = 0.55, 0.75, 0.9
COLUMNS, MOST_COLUMNS = 3, 8
FEWEST_ROWS = 4
NOTE = "bars: 95% intervals over prompts"


def draw_evaluation(evaluation: "Evaluation", path: Path, theme: Theme = LIGHT) -> Path:
    """Write the figure as a PNG."""
    write_whole(path, render(draw_measured(measured_from_json(evaluation.to_json()), theme), "png"))
    return path


def draw_measured(measured: Measured, theme: Theme = LIGHT) -> Figure:
    """All metrics of all variants; what there is no room for is counted in the note below."""
    forms = forms_of(measured.variants) or [RowList([])]
    num_metrics = len(measured.metrics)
    columns = next((n for n in range(COLUMNS, MOST_COLUMNS) if _height(forms, num_metrics, n) <= _ROOM), MOST_COLUMNS)
    shown = _that_fit(forms, num_metrics, columns)
    lists = [_rows_of_list(measured, form, _spare(shown, num_metrics, columns)) for form in shown]
    heights = [_height([form], num_metrics, columns, len(rows)) for form, rows in zip(shown, lists, strict=True)]
    drawn = [row for form in shown for row in form.rows]
    note = (
        NOTE
        + _not_drawn(measured, drawn)
        + "".join(left_out(f.rows, r) for f, r in zip(shown, lists, strict=True) if r)
    )
    used = min(columns, max(1, num_metrics))
    width = PANEL_WIDTH * max(used, 2)
    figure = new_figure(width, sum(heights) + AROUND_FIGURE, theme, head_of(measured, drawn), note)
    parts = figure.subfigures(len(shown), 1, height_ratios=heights, squeeze=False)
    for part, form, rows in zip(parts.flat, shown, lists, strict=True):
        part.set_facecolor(theme.paper)
        _draw_form(part, measured, form, rows, columns, theme)
    return figure


_ROOM = TWO_SCREENS - AROUND_FIGURE


def _height(forms: Sequence[Form], num_metrics: int, columns: int, num_rows: int = FEWEST_ROWS) -> float:
    """The inches of forms; a list with so many rows."""
    total = 0.0
    for form in forms:
        if isinstance(form, RowList):
            bands = math.ceil(num_metrics / _list_columns(columns)) or 1
            total += bands * (AROUND_ROWS + ROW_HEIGHT * num_rows) + AROUND_FORM
        else:
            total += (math.ceil(num_metrics / columns) or 1) * PANEL_HEIGHT + AROUND_FORM
    return total


def _list_columns(columns: int) -> int:
    """Panels of a list are narrower."""
    return 2 * columns - 1


def _that_fit(forms: Sequence[Form], num_metrics: int, columns: int) -> list[Form]:
    """As many forms from the first as there is room for, one at least."""
    found = [forms[0]]
    for form in forms[1:]:
        if _height([*found, form], num_metrics, columns) <= _ROOM:
            found.append(form)
    return found


def _spare(forms: Sequence[Form], num_metrics: int, columns: int) -> int:
    """How many rows a list may have beside the other forms."""
    bands = math.ceil(num_metrics / _list_columns(columns)) or 1
    left = _ROOM - _height(forms, num_metrics, columns)
    return FEWEST_ROWS + max(0, int(left / bands / ROW_HEIGHT))


def _rows_of_list(measured: Measured, form: Form, most: int) -> list[MeasuredRow | None]:
    """What a list draws: the variants between the baseline and the controls that are no lines."""
    if not isinstance(form, RowList):
        return []
    baseline = [row for row in measured.rows if row.kind == "baseline"]
    controls = [row for row in measured.rows if row.kind == "control" and row.name not in (RESEEDED, NOISE)]
    room = max(FEWEST_ROWS, most) - len(baseline) - len(controls)
    first = measured.metric(None)
    variants: list[MeasuredRow | None] = (
        list(form.rows) if first is None else shown_rows(form.rows, first, max(2, room))
    )
    return [*baseline, *variants, *controls]


def _not_drawn(measured: Measured, drawn: Sequence[MeasuredRow]) -> str:
    num = len(measured.variants) - len(drawn)
    return f"; {num} variants are not drawn here: `surgery report` draws all" if num else ""


def _draw_form(
    part: SubFigure, measured: Measured, form: Form, rows: Sequence[MeasuredRow | None], columns: int, theme: Theme
) -> None:
    metrics = measured.metrics
    wide = _list_columns(columns) if isinstance(form, RowList) else columns
    across = max(1, min(wide, len(metrics)))
    panels = part.subplots(math.ceil(len(metrics) / across) or 1, across, squeeze=False)
    for number, axes in enumerate(panels.flat):
        metric = metrics[number] if number < len(metrics) else None
        drawn = form.rows if not isinstance(form, RowList) else measured.rows
        if metric is None or not numbers_of(drawn, metric):
            axes.set_visible(False)
            continue
        match form:
            case CurveSet():
                draw_curves(axes, measured, form, metric, theme)
            case PairMap():
                values = [row.numbers[metric.name].value for row in form.rows if metric.name in row.numbers]
                draw_map(part, axes, form, metric, norm_of(values, metric), theme)
                axes.set_title(metric.head, color=theme.ink, fontsize=SMALL + 1)
            case RowList():
                draw_dots(axes, measured, rows, metric, theme, names=number % across == 0)
    _add_legend(part, measured, form, metrics, theme)


def _add_legend(
    part: SubFigure, measured: Measured, form: Form, metrics: Sequence[MeasuredMetric], theme: Theme
) -> None:
    curves = curve_handles(form, theme) if isinstance(form, CurveSet) else []
    lines = (
        []
        if isinstance(form, PairMap)
        else reference_handles(measured, metrics, theme, with_baseline=isinstance(form, CurveSet))
    )
    if curves or lines:
        part.legend(
            handles=[*curves, *lines],
            loc="outside lower center",
            ncols=8,
            fontsize=SMALL,
            frameon=False,
            labelcolor=theme.ink,
        )
