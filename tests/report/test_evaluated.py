"""Whatever an `evaluation.json` holds ends in a message or in tables: of every value that is not what it should be."""

import copy
import itertools
import json

import numpy as np
import pytest
from evaluations_made import STACK, plan_of
from swept_evaluations import ERROR, SCORE, SSIM, document_of, variant

from surgery.errors import InputError
from surgery.report.cost_figures import costs_of, front_of, priced_rows
from surgery.report.evaluated import read_measured
from surgery.report.metric_figures import head_of
from surgery.report.ranking import rank
from surgery.report.sweep_forms import forms_of
from surgery.report.tidy_tables import findings_table
from surgery.report.what_matters import findings_of, layer_sets

WRONG = (None, "x", -1, 0, [], {}, float("inf"), float("nan"), True)


def small_document():
    numbers = {SCORE: (80.0, 1.0), SSIM: (0.9, 0.1), ERROR: (0.2, 0.1)}
    plan = plan_of({STACK: 3}, STACK, 1, "attn1 = zero")
    return document_of([variant("v", "v", {"layer": 1, "part": "attn1"}, numbers, plan=plan)])


def leaves_of(data, path=()):
    """The paths of all values, of those that hold others too."""
    yield path
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in parts:
        yield from leaves_of(value, (*path, key))


def tables_of(measured):
    """Everything but figures and pictures."""
    findings = [one for metric in measured.metrics for one in findings_of(measured, metric)]
    forms = forms_of(measured.variants)
    list(layer_sets(forms, findings))
    for share_of in costs_of(measured).values():
        front_of(priced_rows(measured, measured.metric(None), share_of), higher_is_better=False)
    return (
        rank(measured, measured.metric(None), findings),
        findings_table(measured, findings),
        head_of(measured, measured.rows),
    )


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])  # 4 and 9 values: each place has others
def test_no_value_that_is_wrong_makes_more_than_a_message(tmp_path, every):
    document, path = small_document(), tmp_path / "evaluation.json"
    refused = 0
    cases = list(itertools.product([place for place in leaves_of(document) if place], WRONG))[::every]
    for place, value in cases:
        broken = copy.deepcopy(document)
        within = broken
        for key in place[:-1]:
            within = within[key]
        within[place[-1]] = value
        path.write_text(json.dumps(broken))
        try:
            measured = read_measured(path)
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        tables_of(measured)
    assert 0.3 < refused / len(cases) < 1


def test_what_older_versions_wrote_is_read(tmp_path):
    """Without points, costs, texts of specs and heads."""
    document = small_document()
    for row in document["rows"]:
        for key in ("spec", "point", "spec_text", "cost"):
            row.pop(key, None)
        for score in row["scores"].values():
            del score["head"]
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(document))
    measured = read_measured(path)
    assert [metric.head for metric in measured.metrics] == [SCORE, SSIM, ERROR]
    assert measured.variants[0].cost is None and np.isfinite(measured.variants[0].numbers[ERROR].value)
    assert "part" not in findings_table(measured, [])
