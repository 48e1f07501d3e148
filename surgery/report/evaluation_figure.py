"""An evaluation as a figure: a panel a metric, a row a variant, values with their intervals between the controls."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from surgery.experiment.controls import NOISE, RESEEDED
from surgery.files import write_whole
from surgery.report.panels import SMALL, new_figure, style_axes
from surgery.report.themes import LIGHT, Theme

if TYPE_CHECKING:
    from surgery.experiment.columns import Column
    from surgery.experiment.evaluated_row import EvaluatedRow
    from surgery.experiment.evaluation import Evaluation

PANEL_INCHES, ROW_INCHES, COLUMNS = 3.1, 0.24, 3


def draw_evaluation(evaluation: "Evaluation", path: Path, theme: Theme = LIGHT) -> Path:
    """Write the figure; vertical lines are the baseline with other seeds (dashed) and noise (dotted)."""
    rows = [row for row in evaluation.rows if row.kind != "control"] + [
        row for row in evaluation.rows if row.kind == "control" and row.name not in (RESEEDED, NOISE)
    ]
    shown = evaluation.columns
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    height = lines * (0.9 + ROW_INCHES * len(rows)) + 0.9
    note = "dashed: baseline with other seeds; dotted: noise; bars: 95% intervals over prompts"
    num = evaluation.num_prompts
    figure = new_figure(PANEL_INCHES * columns + 1.2, height, theme, f"Variants measured, N = {num} prompts", note)
    panels = figure.subplots(lines, columns, squeeze=False)
    for number, axes in enumerate(panels.flat):
        if number >= len(shown):
            axes.set_visible(False)
            continue
        _draw_metric(axes, evaluation, rows, shown[number], theme, names=number % columns == 0)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, facecolor=theme.paper)
    write_whole(path, content.getvalue())
    return path


def _draw_metric(
    axes: Axes, evaluation: "Evaluation", rows: "list[EvaluatedRow]", column: "Column", theme: Theme, *, names: bool
) -> None:
    better = "higher is better" if column.metric.higher_is_better else "lower is better"
    style_axes(axes, theme, title=column.head, x=better)
    for place, row in enumerate(rows):
        score = row.score(column)
        if score is None:
            continue
        color = (
            theme.series[1] if row.kind == "control" else theme.series[2] if row.kind == "baseline" else theme.series[0]
        )
        low, high = score.interval.low, score.interval.high
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=color, linewidth=1.6)
        axes.plot([score.interval.value], [place], "o", color=color, markersize=4)
    for name, style in ((RESEEDED, "--"), (NOISE, ":")):
        score = evaluation.row(name).score(column)
        if score is not None:
            axes.axvline(score.interval.value, color=theme.ink, linestyle=style, linewidth=0.9)
    axes.set_yticks(range(len(rows)), [row.name for row in rows] if names else [], fontsize=SMALL)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", color=theme.faint, linewidth=0.5)
