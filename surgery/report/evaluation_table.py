"""An evaluation as text: rows by metrics with half their intervals, controls apart, each number placed between them."""

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

from surgery.experiment.controls import AVERAGE
from surgery.experiment.marks import AS_BAD, AS_GOOD, VARIANTS
from surgery.plan.cost import Cost
from surgery.text_table import table

if TYPE_CHECKING:
    from surgery.experiment.columns import Column
    from surgery.experiment.evaluated_row import EvaluatedRow
    from surgery.experiment.evaluation import Evaluation


def evaluation_table(evaluation: "Evaluation") -> list[list[str]]:
    """Cells: the head, a row for each row, what it costs last; a metric or a cost that a row lacks is `-`."""
    columns, costs = evaluation.columns, _costs(evaluation)
    stages = [[row.stage] for row in evaluation.shown] if evaluation.has_stages else [[]] * len(evaluation.shown)
    heads = (column.head + (" up" if column.metric.higher_is_better else " down") for column in columns)
    head = ["", *(["stage"] if evaluation.has_stages else []), *heads, *costs]
    cells = [
        [*(_cell(evaluation, row, column) for column in columns), *(_cost_cell(row, cost) for cost in costs)]
        for row in evaluation.shown
    ]
    rows = zip(evaluation.shown, stages, cells, strict=True)
    return [head, *([row.name, *stage, *numbers] for row, stage, numbers in rows)]


COSTS: dict[str, Callable[[Cost], float | None]] = {  # as shares of the baseline's
    "params": lambda cost: cost.parameters_after / cost.parameters_before if cost.parameters_before else None,
    "bytes": lambda cost: cost.bytes_after / cost.bytes_before if cost.bytes_before else None,
    "FLOPs": lambda cost: cost.flops_share,
    "runs": lambda cost: cost.executions_share,
}


def _costs(evaluation: "Evaluation") -> list[str]:
    """The kinds of cost that are known of a variant; bytes only where they are no other share than parameters."""
    costs = [row.cost for row in evaluation.shown if row.kind == "variant" and row.cost is not None]
    known = [name for name, share in COSTS.items() if any(share(cost) is not None for cost in costs)]
    params, size = ([COSTS[name](cost) for cost in costs] for name in ("params", "bytes"))
    return [name for name in known if name != "bytes" or size != params]


def _cost_cell(row: "EvaluatedRow", name: str) -> str:
    if row.kind == "baseline":
        return "100%"
    share = None if row.cost is None or row.kind == AVERAGE else COSTS[name](row.cost)
    return "-" if share is None else f"{100 * share:.1f}%"


def evaluation_text(evaluation: "Evaluation") -> str:
    """The table with its legend and notes."""
    head, *cells = evaluation_table(evaluation)
    controls = [row.kind == "control" for row in evaluation.shown].index(True)
    cells.insert(controls, ["controls", *[""] * (len(head) - 1)])
    every = range(len(head))
    lines = [table([head, *cells], right=every[1:], wrap=every), "", _legend(evaluation)]
    for column in evaluation.columns:
        flag = column.metric.flag
        if flag or column.head != column.name:
            lines.append(f"{column.head}: {column.name}" + (f"; {flag}" if flag else ""))
    costs = _costs(evaluation)
    if costs:
        lines.append(f"{', '.join(costs)}: shares of the baseline's{' (runs are those of blocks)' * ('runs' in costs)}")
    lines += [f"note: {note}" for note in evaluation.notes]
    return "\n".join(lines)


def _legend(evaluation: "Evaluation") -> str:
    """N, what +- is, what the marks say, and over how many variants they are corrected."""
    num = sum(row.kind in VARIANTS for row in evaluation.shown)
    averaged = [row.spec.average for row in evaluation.shown if row.kind == AVERAGE and row.spec is not None]
    over = f"; rows without {' and '.join(dict.fromkeys(chain(*averaged)))} are means over it" if averaged else ""
    corrected = f", corrected over the {num} variants of a column (Benjamini-Hochberg)" if num > 1 else ""
    prompts = "N is that of a row's last stage" if evaluation.has_stages else f"N = {evaluation.num_prompts} prompts"
    return (
        f"{prompts}; +- is half of the 95% interval{over}\n"
        f"{AS_GOOD} shown to be no worse than the baseline with other seeds, {AS_BAD} not shown to be better than "
        f"noise, by 95% intervals of the difference{corrected}; no mark: neither, or it can't be told"
    )


def _cell(evaluation: "Evaluation", row: "EvaluatedRow", column: "Column") -> str:
    score = row.score(column)
    if score is None:
        return "-"
    value, low, high = score.interval.value, score.interval.low, score.interval.high
    half = "" if low is None or high is None or low == high else f"+-{number_text((high - low) / 2)}"
    return f"{number_text(value)}{half}{evaluation.marks.get((row.name, column.key), '')}"


def number_text(value: float) -> str:
    """Three significant digits; `inf` as it is."""
    if value == 0 or abs(value) == float("inf"):
        return f"{value:g}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
