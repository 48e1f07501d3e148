"""An evaluation -> its numbers as two tidy tables: a line for each row and metric, and one for each prompt of these.

A variable of a sweep is a column of its own. Columns and what they hold are listed in the README.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from surgery.experiment.controls import AVERAGE

if TYPE_CHECKING:
    from surgery.experiment.evaluated_row import EvaluatedRow
    from surgery.experiment.evaluation import Evaluation
    from surgery.metrics.intervals import Interval

IDENTITY = ("name", "kind", "spec")
NUMBERS = ("metric", "value", "low", "high", "method", "N", "made_with", "stage")
DIFFERENCE = ("difference", "difference_low", "difference_high", "difference_method")
COST = ("parameters", "bytes", "block_flops", "block_executions")
ROW_COLUMNS = (*IDENTITY, *NUMBERS, *DIFFERENCE, "mark", *COST)
PROMPT_COLUMNS = (*IDENTITY, "metric", "number", "prompt", "value")


def rows_table(evaluation: "Evaluation") -> str:
    """A line for each row and metric, those of the means over points behind: the text of a CSV file."""
    averages = [row for row in evaluation.shown if row.kind == AVERAGE]
    names = {column.key: column.name for column in evaluation.columns}
    lines: list[dict[str, Any]] = []
    for row in (*evaluation.rows, *averages):
        for score in row.scores:
            found = score.interval
            numbers = (
                names[score.metric.key],
                *_ends(found),
                found.method,
                found.num,
                score.metric.made_with,
                row.stage,
            )
            difference = score.difference
            ends = (None,) * 4 if difference is None else (*_ends(difference), difference.method)
            lines.append(
                {
                    **_identity(row),
                    **dict(zip(NUMBERS, numbers, strict=True)),
                    **dict(zip(DIFFERENCE, ends, strict=True)),
                    "mark": evaluation.marks.get((row.name, score.metric.key)),
                    **_cost(row),
                }
            )
    return _csv_text(evaluation, ROW_COLUMNS, lines)


def prompts_table(evaluation: "Evaluation") -> str:
    """A line for each row, metric and prompt, of metrics that have a value for each: the text of a CSV file."""
    prompts = evaluation.recipe["prompts"]
    names = {column.key: column.name for column in evaluation.columns}
    lines = (
        {**_identity(row), "metric": names[score.metric.key], "number": number, "prompt": prompt, "value": float(value)}
        for row in evaluation.rows
        for score in row.scores
        if score.values is not None
        for number, (prompt, value) in enumerate(
            zip(prompts, score.values, strict=False)
        )  # stages are of the first prompts
    )
    return _csv_text(evaluation, PROMPT_COLUMNS, lines)


def _ends(interval: "Interval") -> tuple[float | None, ...]:
    return interval.value, interval.low, interval.high


def _identity(row: "EvaluatedRow") -> dict[str, Any]:
    """What the row is; the variables of its point under the names of their columns."""
    if row.spec is None:
        return {"name": row.name, "kind": row.kind}
    point = {column_of(name): value for name, value in row.spec.point}
    return {"name": row.name, "kind": row.kind, "spec": row.spec.stem, **point}


def _cost(row: "EvaluatedRow") -> dict[str, float | None]:
    """What the row costs, where that is known; a mean over points costs nothing of its own."""
    cost = None if row.kind == AVERAGE else row.cost
    if cost is None:
        return {}
    flops = cost.flops_after if cost.flops_before else None
    known = (cost.parameters_after, cost.bytes_after, flops, cost.executions_after)
    return dict(zip(COST, known, strict=True))


def column_of(variable: str) -> str:
    """The column of a variable; one that is called like another column is told from it."""
    return f"vary_{variable}" if variable in {*ROW_COLUMNS, *PROMPT_COLUMNS} else variable


def _csv_text(evaluation: "Evaluation", columns: tuple[str, ...], lines: Iterable[Mapping[str, Any]]) -> str:
    """The lines under a head: what the row is, the variables in the order in which they come first, the rest."""
    points = (row.spec.point for row in evaluation.rows if row.spec is not None)
    variables = dict.fromkeys(column_of(name) for point in points for name, _ in point)
    head = (*IDENTITY, *variables, *columns[len(IDENTITY) :])
    text = io.StringIO()
    writer = csv.DictWriter(text, head, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
