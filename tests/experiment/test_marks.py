"""Marks rest on intervals: no luck of few pictures, and none of many variants, makes a variant as good as the model."""

import numpy as np
import pytest

from surgery.experiment import marks
from surgery.experiment.columns import columns_of
from surgery.experiment.evaluation import EvaluatedRow
from surgery.experiment.marks import mark_rows
from surgery.experiment.scores import Metric, Score
from surgery.metrics.intervals import Interval, mean_interval

TEXT = Metric("text", "text", "text", True, "a test")
ERROR = Metric("error", "error", "error", False, "a test")
KID = Metric("kid", "KID", "KID", False, "a test")
FLAGGED = Metric("precision", "precision", "precision", True, "a test", flag="N = 4 < 64")


def by_prompt(metric, values):
    return Score(metric, mean_interval(values), values=np.asarray(values, dtype=np.float64))


def over_all(metric, value, half):
    return Score(metric, Interval(value, value - half, value + half, 9, "jackknife"))


def marks_of(scores, kinds=None):
    """Scores by row (reseeded, noise, and variants) -> the marks of the variants by row and metric."""
    controls = {"reseeded": "control", "noise": "control"}
    rows = [
        EvaluatedRow(name, (kinds or controls).get(name, "variant"), None, own if isinstance(own, tuple) else (own,))
        for name, own in scores.items()
    ]
    columns = columns_of(score.metric for row in rows for score in row.scores)
    return {name: mark for (name, _), mark in mark_rows(rows, columns).items()}


def test_marks_say_what_differences_prompt_by_prompt_show():
    """Prompts differ more than rows: what pairs them tells rows apart that means alone do not."""
    hard = np.arange(8) * 10.0
    wobble = np.tile([0.0, 0.5], 4)
    found = marks_of(
        {
            "reseeded": by_prompt(TEXT, hard),
            "noise": by_prompt(TEXT, hard - 9),
            "better": by_prompt(TEXT, hard + 0.1 + wobble),
            "between": by_prompt(TEXT, hard - 4 + wobble),
            "as bad": by_prompt(TEXT, hard - 9 - wobble),
            "equal": by_prompt(TEXT, hard),
        }
    )
    assert found == {"better": "=", "as bad": "!", "equal": "="}


def test_the_side_that_is_better_is_the_metrics_own():
    values = np.array([1.0, 1.1, 1.3, 1.2])
    rows = {"reseeded": by_prompt(ERROR, values), "noise": by_prompt(ERROR, values + 9)}
    wobble = np.array([0.0, 0.1, 0.0, 0.1])
    assert marks_of({**rows, "a": by_prompt(ERROR, values - 0.2 - wobble)}) == {"a": "="}
    assert marks_of({**rows, "a": by_prompt(ERROR, values + 9.2 + wobble)}) == {"a": "!"}


def test_numbers_over_all_pictures_are_marked_where_their_intervals_tell():
    """As of KID: a better value within wide intervals is no mark."""
    controls = {"reseeded": over_all(KID, 1.0, 0.5), "noise": over_all(KID, 200.0, 9.0)}
    assert marks_of({**controls, "lucky": over_all(KID, 0.4, 2.0)}) == {}
    assert marks_of({**controls, "sure": over_all(KID, -0.5, 0.5)}) == {"sure": "="}
    assert marks_of({**controls, "broken": over_all(KID, 195.0, 9.0)}) == {"broken": "!"}


def test_what_is_flagged_or_has_no_interval_has_no_mark():
    single = Score(KID, Interval(0.1, None, None, 9, "one number over all pictures"))
    none = Score(KID, Interval(9.0, None, None, 9, "one number over all pictures"))
    assert marks_of({"reseeded": none, "noise": none, "a": single}) == {}
    flagged = over_all(FLAGGED, 0.9, 0.0)
    assert marks_of({"reseeded": flagged, "noise": flagged, "a": over_all(FLAGGED, 1.0, 0.0)}) == {}
    one = by_prompt(TEXT, [1.0])
    assert marks_of({"reseeded": one, "noise": one, "a": by_prompt(TEXT, [9.0])}) == {}


def lucky_rows(num):
    """Variants that are exactly as good as the control, each by its own chance."""
    rng = np.random.default_rng(1)
    rows = {f"row {number}": by_prompt(TEXT, rng.normal(0, 1, 8)) for number in range(num)}
    return {"reseeded": by_prompt(TEXT, rng.normal(0, 1, 8)), **rows}


def test_none_of_many_variants_is_as_good_by_luck():
    assert marks_of(lucky_rows(200)) == {}


def test_without_the_correction_some_would_be(monkeypatch):
    """The saboteur of the test above."""
    monkeypatch.setattr(marks, "adjust", lambda p_values: p_values)
    with pytest.raises(AssertionError, match="=="):
        test_none_of_many_variants_is_as_good_by_luck()


def test_a_mean_over_points_must_hold_over_prompts_and_over_points():
    hard = np.arange(8) * 10.0
    wobble = np.tile([0.0, 0.5], 4)
    controls = {"reseeded": by_prompt(TEXT, hard), "noise": by_prompt(TEXT, hard - 99)}
    kinds = {"reseeded": "control", "noise": "control", "a": "average"}

    def average(points):
        mean = hard + np.mean(points) + wobble
        own = np.asarray(points, dtype=np.float64) + hard.mean()
        return Score(TEXT, mean_interval(own), values=mean, points=own)

    assert marks_of({**controls, "a": average([1.0, 1.1, 1.2])}, kinds) == {"a": "="}
    assert marks_of({**controls, "a": average([9.0, -8.0, 2.3])}, kinds) == {}
