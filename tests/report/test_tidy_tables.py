"""The tidy tables hold what the document holds, a line for each number."""

import csv
import io
import json

import numpy as np
import pytest

from surgery.experiment.evaluation import EvaluatedRow, Evaluation
from surgery.experiment.scores import Metric, Score
from surgery.metrics.intervals import Interval, difference_interval, mean_interval
from surgery.plan.sweep import expand_sweep
from surgery.report.tidy_tables import prompts_table, rows_table
from surgery.spec.load import read_spec

PROMPTS = ["red apple", 'a "quoted", comma', "two\nlines", "=1+1"]
TEXT, KID = Metric("text", "text (a CLIP)", "text", True, "a, test"), Metric("kid", "KID", "KID", False, "inception")
SWEEP = """surgery: v1
vary: {name: [1, 2], how: {skip: [{skip: "transformer_blocks[{name}]"}]}, seed: [0, 1]}
average: seed
operations: [how, {shuffle: {layers: "transformer_blocks[3:]", seed: "{seed}"}}]
"""
RNG = np.random.default_rng(0)


def row_of(name, kind, spec=None):
    values = np.array([float("inf"), *RNG.normal(50, 3, 3)]) if kind == "baseline" else RNG.normal(50, 3, 4)
    difference = None if kind == "baseline" else difference_interval(values, values - 1)
    over_all = Interval(1 / 3, None, None, 4, "one number over all pictures")
    scores = (Score(TEXT, mean_interval(values), difference, values), Score(KID, over_all))
    return EvaluatedRow(name, kind, None, scores, spec)


@pytest.fixture(scope="module")
def evaluation(anatomies):
    variants = [row_of(spec.name, "variant", spec) for spec in expand_sweep(read_spec(SWEEP), anatomies["pixart"])]
    controls = [row_of(name, "control") for name in ("reseeded", "noise")]
    return Evaluation((row_of("baseline", "baseline"), *variants, *controls), {"prompts": PROMPTS}, ())


def lines_of(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_every_number_of_the_document_is_a_line(evaluation):
    document = json.loads(json.dumps(evaluation.to_json()))
    lines = {(line["name"], line["kind"], line["metric"]): line for line in lines_of(rows_table(evaluation))}
    rows = [*document["rows"], *document["averages"]]
    assert len(lines) == sum(len(row["scores"]) for row in rows)
    for row in rows:
        for metric, score in row["scores"].items():
            line = lines[row["name"], row["kind"], metric]
            told = {"value": line["value"], "low": line["low"], "high": line["high"], "num": line["N"]}
            assert {key: None if text == "" else float(text) for key, text in told.items()} == {
                key: score[key] for key in told
            }
            assert (line["method"], line["made_with"]) == (score["method"], score["made_with"])
            assert (line["mark"] or None) == score.get("mark")
            difference = score.get("difference_to_baseline")
            assert (line["difference"] == "") == (difference is None)
            if difference is not None:
                assert float(line["difference_low"]) == difference["low"]
                assert line["difference_method"] == difference["method"]


def test_a_variable_is_a_column_and_no_other_ones(evaluation):
    """One that is called like a column of the table is told from it; a mean has none of what it is over."""
    head, *_ = rows_table(evaluation).splitlines()
    assert head.split(",")[:7] == ["name", "kind", "spec", "vary_name", "how", "seed", "metric"]
    by_name = {line["name"]: line for line in lines_of(rows_table(evaluation))}
    point = by_name["spec name=2 how=skip seed=1"]
    assert [point[key] for key in ("spec", "vary_name", "how", "seed")] == ["spec", "2", "skip", "1"]
    mean = by_name["spec name=2 how=skip"]
    assert [mean[key] for key in ("kind", "vary_name", "how", "seed")] == ["average", "2", "skip", ""]


def test_every_value_of_a_prompt_is_a_line_with_its_prompt_as_it_is(evaluation):
    lines = lines_of(prompts_table(evaluation))
    assert len(lines) == len(evaluation.rows) * len(PROMPTS)
    for row in evaluation.rows:
        own = [line for line in lines if line["name"] == row.name]
        assert [line["prompt"] for line in own] == PROMPTS
        assert [int(line["number"]) for line in own] == [0, 1, 2, 3]
        assert [float(line["value"]) for line in own] == list(row.scores[0].values)
        assert {line["metric"] for line in own} == {"text (a CLIP)"}
