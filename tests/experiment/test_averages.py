"""Rows that a sweep averages: one row in their place, the mean over the points, with an interval over them."""

from dataclasses import replace

import numpy as np
import pytest

from surgery.experiment.averages import averaged_rows
from surgery.experiment.evaluation import EvaluatedRow, Evaluation
from surgery.experiment.scores import Metric, Score
from surgery.metrics.intervals import difference_interval, mean_interval
from surgery.plan.sweep import expand_sweep
from surgery.report.evaluation_table import evaluation_table, evaluation_text
from surgery.spec.load import read_spec

SWEEP = """surgery: v1
vary: {s: [1, 2], seed: [0, 1, 2]}
average: [seed]
operations: [{shuffle: {layers: "transformer_blocks[{s}:]", seed: "{seed}"}}]
"""
TEXT = Metric("text", "text", "text", True, "a test")
RNG = np.random.default_rng(0)


def row_of(name, kind="variant", spec=None):
    values = RNG.normal(50, 3, 4)
    score = Score(TEXT, mean_interval(values), difference_interval(values, values - 1), values)
    return EvaluatedRow(name, kind, None, (score,), spec, None, RNG.random((4, 2)))


def points(anatomies, file="painters.yaml", **more):
    """A row for each point of the sweep."""
    spec = replace(read_spec(SWEEP, file=file), **more)
    return [row_of(point.name, spec=point) for point in expand_sweep(spec, anatomies["pixart"])]


def evaluation_of(variants):
    controls = [row_of(name, "control") for name in ("no-op", "reseeded", "noise")]
    return Evaluation((row_of("baseline", "baseline"), *variants, *controls), {"prompts": list("abcd")}, ())


def test_a_row_is_the_mean_of_its_points_with_an_interval_over_them(anatomies):
    rows = points(anatomies)
    first, second = averaged_rows(rows)
    values = [row.scores[0].interval.value for row in rows[:3]]
    (score,) = first.scores
    by_hand = mean_interval(values)
    assert (score.interval.value, score.interval.low, score.interval.high) == (by_hand.value, by_hand.low, by_hand.high)
    assert (score.interval.num, score.interval.method) == (3, "Student's t over 3 points (seed)")
    assert score.difference.value == pytest.approx(1.0)
    assert np.array_equal(score.values, np.mean([row.scores[0].values for row in rows[:3]], 0))
    assert np.array_equal(first.errors, np.mean([row.errors for row in rows[:3]], 0))
    assert [(row.name, row.kind, row.spec.point) for row in (first, second)] == [
        ("painters s=1", "average", (("s", 1),)),
        ("painters s=2", "average", (("s", 2),)),
    ]


def test_the_table_has_the_mean_where_its_points_would_stand(anatomies):
    plain = row_of("plain")
    found = evaluation_of([plain, *points(anatomies)])
    names = [line[0] for line in evaluation_table(found)[1:]]
    assert names == ["baseline", "plain", "painters s=1", "painters s=2", "no-op", "reseeded", "noise"]
    text = evaluation_text(found)
    assert "; rows without seed are means over it" in text and "corrected over the 3 variants of a column" in text


def test_the_document_has_the_points_and_their_means(anatomies):
    document = evaluation_of(points(anatomies)).to_json()
    assert len(document["rows"]) == 1 + 6 + 3
    assert [(row["name"], row["point"], row["over"]) for row in document["averages"]] == [
        ("painters s=1", {"s": 1}, ["seed"]),
        ("painters s=2", {"s": 2}, ["seed"]),
    ]
    assert document["averages"][0]["scores"]["text"]["method"] == "Student's t over 3 points (seed)"
    assert "averages" not in evaluation_of([row_of("plain")]).to_json()


def test_a_sweep_that_is_given_twice_is_averaged_twice_under_names_of_their_own(anatomies):
    names = [row.name for row in averaged_rows([*points(anatomies), *points(anatomies), row_of("painters s=1")])]
    assert names == ["painters s=1-2", "painters s=2", "painters s=1-3", "painters s=2-2", "painters s=1"]


def test_a_point_that_was_asked_for_stands_for_itself(anatomies):
    (row,) = points(anatomies, named=(("s", "1"), ("seed", "2")))
    assert averaged_rows([row]) == (row,)


def test_a_metric_that_a_point_lacks_has_no_mean(anatomies):
    rows = points(anatomies)
    rows[1] = replace(rows[1], scores=())
    assert [len(row.scores) for row in averaged_rows(rows)] == [0, 1]
