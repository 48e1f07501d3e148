"""Stages: few prompts for many variants, many for the best."""

import csv
import json

import pytest
from typer.testing import CliRunner

from surgery.commands.main import app
from surgery.errors import InputError
from surgery.experiment.evaluation import EvaluatedRow
from surgery.experiment.scores import Metric, Score
from surgery.experiment.stages import Stage, checked_stages, read_stages
from surgery.metrics.intervals import Interval

SWEEP = """
surgery: v1
model: demo
vary: {k: [1, 3, 5, 7]}
operations: [{skip: "transformer_blocks[{k}]"}]
"""


def score(kind, value, *, higher=False):
    return Score(Metric(kind, kind, kind, higher, ""), Interval(value, None, None, 4, "made up"))


def row(name, *scores, kind="variant"):
    return EvaluatedRow(name, kind, None, scores)


def test_stages_are_read_as_they_are_written():
    text = "error:64/20,paired:32/10,full:1000"
    found = read_stages(text)
    assert found == (Stage("error", 64, 20), Stage("paired", 32, 10), Stage("full", 1000))
    assert ",".join(stage.text for stage in found) == text
    assert [(stage.draws, stage.measures_errors) for stage in found] == [(False, True), (True, False), (True, True)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("error", '"error" is no stage of error, paired, full; write stages like error:64/20'),
        ("draft:8", '"draft:8" is no stage of error, paired, full'),
        ("error:64,full:100", "the stage error:64 does not say how many rows go on"),
        ("error:64/0,full:100", "the stage error:64/0 has no rows"),
        ("full:0", "the stage full:0 has no prompts"),
        ("full:100/3", "no stage comes after full:100/3, to which 3 rows could go on"),
        ("error:64/9,paired:32/9,full:99", "the stage paired:32/9 keeps no fewer rows than error:64/9"),
        ("error:64/9,error:32/3,full:99", "the stage error:32/3 has fewer prompts than error:64/9"),
    ],
)
def test_stages_that_are_none_are_refused(text, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        read_stages(text)


def test_more_prompts_than_there_are_are_refused():
    with pytest.raises(InputError, match="the stage full:1000 asks for 1000 prompts, and there are 64"):
        checked_stages(read_stages("full:1000"), 64)


def test_without_stages_all_is_measured_on_all_prompts():
    assert checked_stages((), 7) == (Stage("full", 7),)


def test_the_best_go_on_by_the_first_metric_of_their_stage():
    values = {"a": 0.3, "b": 0.1, "c": float("nan"), "d": 0.2}
    rows = [row(name, score("denoising error", value)) for name, value in values.items()]
    assert Stage("error", 4, 2).choose([row("no-op", kind="control"), *rows], None) == ("b", "d")
    assert Stage("error", 4, 9).choose(rows, None) == ("b", "d", "a", "c")
    text = {"a": 30.0, "b": 31.0, "d": 29.0}
    rows = [row(n, score("text score", v, higher=True), score("ssim", -v, higher=True)) for n, v in text.items()]
    assert Stage("paired", 4, 1).choose(rows, None) == ("d",)
    assert Stage("paired", 4, 1).choose(rows, "Text score") == ("b",)
    assert Stage("full", 4, 1).choose(rows, None) == ("b",)


def test_what_nothing_can_be_ranked_by_is_refused():
    with pytest.raises(InputError, match=r"there is no metric .sim.; there are .*did you mean .ssim."):
        checked_stages(read_stages("paired:2/1,full:4"), 4, "sim")
    with pytest.raises(InputError, match="--rank-by says which variants go on from stage to stage; give --stages"):
        checked_stages((), 4, "ssim")
    with pytest.raises(InputError, match="the stage error:4/1 has measured nothing that its variants could be ranked"):
        Stage("error", 4, 1).choose([row("a")], None)


def test_an_evaluation_in_stages_measures_each_row_as_far_as_it_came(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    (tmp_path / "prompts.txt").write_text("red apple\nrocket\ntwo dogs\n")
    out = tmp_path / "out"
    command = ["evaluate", str(tmp_path / "sweep.yaml"), "--prompts", str(tmp_path / "prompts.txt"), "--out", str(out)]
    options = ["--stages", "error:2/2,paired:2/1,full:3", "--steps", "2", "--bins", "2", "--extractor", "none"]
    result = CliRunner().invoke(app, [*command, *options, "--quiet"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads((out / "evaluation.json").read_text())
    rows = {found["name"]: found for found in document["rows"]}
    stopped = [found["stage"] for found in document["rows"] if found["kind"] == "variant"]
    assert sorted(stopped) == ["error:2/2", "error:2/2", "full:3", "paired:2/1"]
    assert {rows[name]["stage"] for name in ("baseline", "no-op", "noise")} == {"full:3"}
    measured = {stage: [] for stage in stopped}
    for found in document["rows"]:
        if found["kind"] == "variant":
            measured[found["stage"]].append(found["scores"])
    assert all(set(scores) == {"denoising error"} for scores in measured["error:2/2"])
    (paired,), (full,) = measured["paired:2/1"], measured["full:3"]
    assert "denoising error" not in paired and {"denoising error", "SSIM"} <= set(full)
    assert (paired["SSIM"]["num"], full["SSIM"]["num"]) == (2, 3)
    assert full["denoising error"]["value"] < min(
        scores["denoising error"]["value"] for scores in measured["error:2/2"]
    )
    lines = list(csv.DictReader((out / "rows.csv").read_text().splitlines()))
    assert {(line["stage"], line["metric"]) for line in lines} >= {("error:2/2", "denoising error"), ("full:3", "SSIM")}
    assert "error:2/2" in result.output and "N is that of a row's last stage" in result.output
