"""Rows of a sweep that differ only in the variables of its `average` -> one row, their mean with an interval over them.

The interval is Student's over the points (ten seeds, say), and says how much a number hangs on which of them was drawn;
that over prompts is with each point.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from surgery.experiment.controls import AVERAGE
from surgery.experiment.evaluated_row import EvaluatedRow
from surgery.experiment.jury import Array
from surgery.experiment.rows import names_apart
from surgery.experiment.scores import Score
from surgery.metrics.intervals import Interval, mean_interval
from surgery.spec.load import Spec


def averaged_rows(rows: Sequence[EvaluatedRow]) -> tuple[EvaluatedRow, ...]:
    """A row for all points with the same other variables, where the first of them stands; other rows as they are."""
    groups: dict[object, list[EvaluatedRow]] = {}
    times: Counter[object] = Counter()
    for row in rows:
        key: object = row.name
        if row.spec is not None and _is_averaged(row.spec):
            times[row.spec.file, row.spec.point] += 1  # a spec that is given twice is averaged twice
            key = (row.spec.file, _kept(row.spec), times[row.spec.file, row.spec.point])
        groups.setdefault(key, []).append(row)
    found: list[EvaluatedRow] = []
    single = [row.name for row in rows if row.spec is None or not _is_averaged(row.spec)]
    for members in groups.values():
        spec = members[0].spec
        if spec is None or not _is_averaged(spec):
            found += members
            continue
        kept = replace(spec, point=_kept(spec))
        (name,) = names_apart([kept.name], [*single, *(row.name for row in found)])
        found.append(_mean_row(name, members, kept))
    return tuple(found)


def _is_averaged(spec: Spec) -> bool:
    """Whether it is one of the points that a mean is over; one that was asked for by its name stands for itself."""
    return bool(spec.average) and spec.named is None


def _kept(spec: Spec) -> tuple[tuple[str, int | float | str], ...]:
    return tuple((name, value) for name, value in spec.point if name not in spec.average)


def _mean_row(name: str, members: Sequence[EvaluatedRow], spec: Spec) -> EvaluatedRow:
    by_row = [{score.metric.key: score for score in row.scores} for row in members]
    shared = [key for key in by_row[0] if all(key in scores for scores in by_row)]
    scores = tuple(_mean_score([scores[key] for scores in by_row], spec.average) for key in shared)
    errors = [row.errors for row in members if row.errors is not None]
    mean = np.mean(errors, 0) if len(errors) == len(members) else None
    first = members[0]
    return replace(first, name=name, kind=AVERAGE, pictures=None, scores=scores, spec=spec, plan=None, errors=mean)


def _mean_score(scores: Sequence[Score], over: Sequence[str]) -> Score:
    points = np.array([score.interval.value for score in scores])
    values = [score.values for score in scores if score.values is not None]
    differences = [score.difference.value for score in scores if score.difference is not None]
    return Score(
        scores[0].metric,
        _over_points(points, over),
        _over_points(np.array(differences), over) if len(differences) == len(scores) else None,
        np.mean(values, 0) if len(values) == len(scores) else None,
        points,
    )


def _over_points(values: Array, over: Sequence[str]) -> Interval:
    num = len(values)
    method = f"Student's t over {num} points ({', '.join(over)})" if num > 1 else "of one point"
    return replace(mean_interval(values), method=method)
