"""An evaluation -> its numbers as tidy tables: a line for each row and metric, and one for each prompt of these.

A variable of a sweep is a column of its own. Columns and what they hold are listed in docs/measuring.md. The table of a
page is made from what was read of an evaluation, and says what is tested there.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from surgery.experiment.controls import AVERAGE
from surgery.report.cost_figures import COSTS

if TYPE_CHECKING:
    from surgery.experiment.evaluated_row import EvaluatedRow
    from surgery.experiment.evaluation import Evaluation
    from surgery.metrics.intervals import Interval
    from surgery.report.evaluated import Measured, MeasuredRow
    from surgery.report.what_matters import Finding

IDENTITY = ("name", "kind", "spec")
NUMBERS = ("metric", "value", "low", "high", "method", "N", "made_with", "stage")
DIFFERENCE = ("difference", "difference_low", "difference_high", "difference_method")
COST = ("parameters", "bytes", "block_flops", "block_executions")
ROW_COLUMNS = (*IDENTITY, *NUMBERS, *DIFFERENCE, "mark", *COST)
PROMPT_COLUMNS = (*IDENTITY, "metric", "number", "prompt", "value")
SHARES = tuple("_".join([*name.split(), "share"]) for name in COSTS)
TESTED_COLUMNS = (*IDENTITY, *NUMBERS[:-2], "level", *DIFFERENCE[:-1], "p_adjusted", *SHARES)

Points = Iterable[Iterable[tuple[str, Any]]]  # of rows: the variables of each with their values


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
    return _csv_text(_points_of(evaluation), ROW_COLUMNS, lines)


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
    return _csv_text(_points_of(evaluation), PROMPT_COLUMNS, lines)


def findings_table(measured: "Measured", findings: "Sequence[Finding]") -> str:
    """A line for each row and metric of an evaluation that was read, with the difference to the control, its adjusted
    p-value, and what the row costs, as shares of the baseline's: the text of a CSV file."""
    tested = {(finding.row.name, finding.metric.name): finding for finding in findings}
    lines: list[dict[str, Any]] = []
    for row in measured.rows:
        for metric in measured.metrics:
            if metric.name in row.numbers:
                found = row.numbers[metric.name]
                numbers = metric.name, *_ends(found), found.method, found.num, found.level
                lines.append(
                    {
                        "name": row.name,
                        "kind": row.kind,
                        "spec": row.stem,
                        **{column_of(name, TESTED_COLUMNS): value for name, value in row.point.items()},
                        **dict(zip((*NUMBERS[:-2], "level"), numbers, strict=True)),
                        **_tested(tested.get((row.name, metric.name))),
                        **_shares(row),
                    }
                )
    return _csv_text((row.point.items() for row in measured.rows), TESTED_COLUMNS, lines)


def _tested(finding: "Finding | None") -> dict[str, float | None]:
    if finding is None:
        return {}
    return dict(zip(DIFFERENCE[:-1], _ends(finding.difference), strict=True)) | {"p_adjusted": finding.adjusted}


def _shares(row: "MeasuredRow") -> dict[str, float | None]:
    cost = row.cost
    return {} if cost is None else {share: of(cost) for share, of in zip(SHARES, COSTS.values(), strict=True)}


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


def column_of(variable: str, columns: Sequence[str] = ()) -> str:
    """The column of a variable; one that is called like another, of the tables or of these, is told from it."""
    return f"vary_{variable}" if variable in {*ROW_COLUMNS, *PROMPT_COLUMNS, *columns} else variable


def _points_of(evaluation: "Evaluation") -> Points:
    return (row.spec.point for row in evaluation.rows if row.spec is not None)


def _csv_text(points: Points, columns: tuple[str, ...], lines: Iterable[Mapping[str, Any]]) -> str:
    """The lines under a head: what the row is, the variables in the order in which they come first, the rest."""
    variables = dict.fromkeys(column_of(name, columns) for point in points for name, _ in point)
    head = (*IDENTITY, *variables, *columns[len(IDENTITY) :])
    text = io.StringIO()
    writer = csv.DictWriter(text, head, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
