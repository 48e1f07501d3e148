"""An evaluation as text: rows by metrics with half their intervals, controls apart, each number placed between them."""

from typing import TYPE_CHECKING

from surgery.experiment.controls import NOISE, RESEEDED
from surgery.text_table import table

if TYPE_CHECKING:
    from surgery.experiment.columns import Column
    from surgery.experiment.evaluation import EvaluatedRow, Evaluation

AS_GOOD, AS_BAD = "=", "!"
LEGEND = (
    f"{AS_GOOD} no worse than the baseline with other seeds, {AS_BAD} no better than noise; "
    "+- is half of the 95% interval"
)


def evaluation_table(evaluation: "Evaluation") -> list[list[str]]:
    """Cells: the head, a row for each row; a metric that a row lacks is `-`."""
    columns = evaluation.columns
    stages = [[row.stage] for row in evaluation.rows] if evaluation.has_stages else [[]] * len(evaluation.rows)
    head = [
        "",
        *(["stage"] if evaluation.has_stages else []),
        *(column.head + (" up" if column.metric.higher_is_better else " down") for column in columns),
    ]
    cells = [[_cell(evaluation, row, column) for column in columns] for row in evaluation.rows]
    rows = zip(evaluation.rows, stages, cells, strict=True)
    return [head, *([row.name, *stage, *numbers] for row, stage, numbers in rows)]


def evaluation_text(evaluation: "Evaluation") -> str:
    """The table with its legend and notes."""
    head, *cells = evaluation_table(evaluation)
    controls = [row.kind == "control" for row in evaluation.rows].index(True)
    cells.insert(controls, ["controls", *[""] * (len(head) - 1)])
    every = range(len(head))
    num = evaluation.num_prompts
    number = "N is that of a row's last stage" if evaluation.has_stages else f"N = {num} prompts"
    lines = [table([head, *cells], right=every[1:], wrap=every), "", f"{number}; {LEGEND}"]
    for column in evaluation.columns:
        flag = column.metric.flag
        if flag or column.head != column.name:
            lines.append(f"{column.head}: {column.name}" + (f"; {flag}" if flag else ""))
    lines += [f"note: {note}" for note in evaluation.notes]
    return "\n".join(lines)


def _cell(evaluation: "Evaluation", row: "EvaluatedRow", column: "Column") -> str:
    score = row.score(column)
    if score is None:
        return "-"
    value, low, high = score.interval.value, score.interval.low, score.interval.high
    half = "" if low is None or high is None or low == high else f"+-{number_text((high - low) / 2)}"
    return f"{number_text(value)}{half}{placed(evaluation, row, column)}"


def placed(evaluation: "Evaluation", row: "EvaluatedRow", column: "Column") -> str:
    """The marks of a variant's number: whether it is as good as the baseline reseeded, or as bad as noise."""
    mine = row.score(column)
    if row.kind != "variant" or mine is None:
        return ""
    sign = 1 if mine.metric.higher_is_better else -1
    marks = ""
    good, bad = (evaluation.row(name).score(column) for name in (RESEEDED, NOISE))
    if good is not None and sign * mine.interval.value >= sign * good.interval.value:
        marks += AS_GOOD
    if bad is not None and sign * mine.interval.value <= sign * bad.interval.value:
        marks += AS_BAD
    return marks


def number_text(value: float) -> str:
    """Three significant digits; `inf` as it is."""
    if value == 0 or abs(value) == float("inf"):
        return f"{value:g}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
