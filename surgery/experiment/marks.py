"""What a table may say of a variant's number: no worse than the model with other noise, or not better than no picture.

The burden is on the variant: both marks rest on the interval of a difference to a control, prompt by prompt where a
metric has a value for each prompt, else on both intervals. Of all variants of a column the p-values are corrected
together (Benjamini-Hochberg). A number that is mostly bias (a flag), or that has no interval, gets no mark.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from surgery.experiment.controls import AVERAGE, NOISE, RESEEDED
from surgery.metrics.significance import adjust, p_of_intervals, p_of_pairs

if TYPE_CHECKING:
    from surgery.experiment.columns import Column
    from surgery.experiment.evaluated_row import EvaluatedRow
    from surgery.experiment.scores import Score

AS_GOOD, AS_BAD = "=", "!"
LEVEL = 0.025  # one-sided: of one variant, that its 95% interval lies on one side
VARIANTS = ("variant", AVERAGE)

Marks = dict[tuple[str, str], str]  # by the name of a row and the key of a column


def mark_rows(rows: "Sequence[EvaluatedRow]", columns: "Sequence[Column]") -> Marks:
    """The marks of all variants, none for those that have none."""
    found: Marks = {}
    for column in columns:
        for name, mark in _marks_of_column(rows, column):
            key = (name, column.key)
            found[key] = found.get(key, "") + mark
    return found


def _marks_of_column(rows: "Sequence[EvaluatedRow]", column: "Column") -> Iterator[tuple[str, str]]:
    scores = {row.name: score for row in rows if (score := row.score(column)) is not None and not score.metric.flag}
    variants = [row.name for row in rows if row.kind in VARIANTS and row.name in scores]
    for control, mark in ((RESEEDED, AS_GOOD), (NOISE, AS_BAD)):
        if control not in scores:
            continue
        told = {name: _p_of_better(scores[name], scores[control]) for name in variants}
        known = {name: p for name, p in told.items() if p is not None}
        for name, p in zip(known, adjust(list(known.values())), strict=True):
            if (p <= LEVEL) == (mark == AS_GOOD):
                yield name, mark


def _p_of_better(score: "Score", control: "Score") -> float | None:
    """The p-value of "the number is not better than the control's"; None where that can't be told.

    Of a mean over points it must hold over prompts and over the points.
    """
    sign = 1 if score.metric.higher_is_better else -1
    if score.values is None or control.values is None:
        pair = (score.interval, control.interval)
        return p_of_intervals(*pair) if sign == 1 else p_of_intervals(*pair[::-1])
    num = min(len(score.values), len(control.values))  # prompts of stages nest
    by_prompt = p_of_pairs(sign * score.values[:num], sign * control.values[:num])
    if score.points is None or by_prompt is None:
        return by_prompt
    by_point = p_of_pairs(sign * score.points, [sign * control.interval.value] * len(score.points))
    return None if by_point is None else max(by_prompt, by_point)
