"""The table of metrics: each has a key of its own, and a new one is everywhere as soon as it is there."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from typer.testing import CliRunner

from surgery.commands import main
from surgery.experiment import metric_table
from surgery.experiment.evaluation import EvaluatedRow, Evaluation
from surgery.experiment.jury import Judges
from surgery.experiment.metric_table import METRICS, Measured, MetricKind, Sight, list_metrics
from surgery.experiment.scores import notes_on_number, score_row
from surgery.experiment.sights import Observed
from surgery.metrics.intervals import mean_interval
from surgery.metrics.pictures import pictures_of_tensor
from surgery.report.evaluation_figure import draw_evaluation
from surgery.report.evaluation_table import evaluation_text

PAGE = (Path(__file__).parents[2] / "docs" / "measuring.md").read_text()
NOBODY = Judges((), (), None, None, Path("nowhere"))


def score_brightness(pictures, baseline):
    values = np.array([float(item.double().mean()) for item in pictures])
    return Measured(mean_interval(values), values=values)


BRIGHTNESS = MetricKind(
    *("brightness", "brightness of pixels", "brightness (0 to 255)", "bright", Sight.PIXELS, score_brightness),
    min_pictures=2,
    made_with="a test",
)


def drawn(seed, num=3):
    pixels = torch.randint(0, 256, (num, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return pictures_of_tensor(pixels)


def evaluate():
    """Three rows that nobody but the pixels judges."""
    pictures = {name: drawn(seed) for seed, name in enumerate(("baseline", "reseeded", "noise"))}
    rows = [
        EvaluatedRow(
            name,
            "baseline" if name == "baseline" else "control",
            own,
            tuple(score_row(Observed(own, pictures["baseline"], ("",) * 3, NOBODY))),
        )
        for name, own in pictures.items()
    ]
    return Evaluation(tuple(rows), {"prompts": ["red apple"] * len(rows[0].pictures)}, ())


def titles_of(evaluation, path, monkeypatch):
    """What the panels of the figure are called."""
    found = []
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: found.append(self))
    draw_evaluation(evaluation, path)
    return [axes.get_title() for axes in found[0].axes if axes.get_visible()]


def help_text():
    """What `surgery evaluate --help` says, of a program that has just been started."""
    return CliRunner().invoke(importlib.reload(main).app, ["evaluate", "--help"]).stdout


@pytest.fixture
def _brightness(monkeypatch):
    """Brightness in the table of metrics, for one test."""
    with monkeypatch.context() as patch:
        patch.setattr(metric_table, "METRICS", (*METRICS, BRIGHTNESS))
        yield
    importlib.reload(main)


@pytest.mark.parametrize("field", ["kind", "title", "name", "head"])
def test_every_metric_has_a_key_and_names_of_its_own(field):
    assert len({getattr(metric, field) for metric in METRICS}) == len(METRICS)


def test_metrics_of_one_sight_stand_together():
    """So that all of a judge come before those of the next."""
    sights = [metric.sight for metric in METRICS]
    assert sights == sorted(sights, key=sights.index) and set(sights) == set(Sight)


@pytest.mark.usefixtures("_brightness")
def test_a_new_metric_is_in_table_figure_json_notes_and_help(tmp_path, monkeypatch):
    found = evaluate()
    table = evaluation_text(found).splitlines()
    values = {row.name: row.pictures.all_pixels().double().mean((1, 2, 3)).mean().item() for row in found.rows}
    assert table[0].split()[-2:] == ["bright", "down"]
    assert "bright: brightness (0 to 255)" in table
    assert titles_of(found, tmp_path / "figure.png", monkeypatch)[-1] == "bright"
    for row in found.to_json()["rows"]:
        score = row["scores"]["brightness (0 to 255)"]
        assert score["value"] == pytest.approx(values[row["name"]])
        assert (score["key"], score["made_with"], score["higher_is_better"]) == ("brightness", "a test", False)
    assert notes_on_number(1, NOBODY) == ["no brightness of pixels: they need at least 2 prompts"]
    one = Observed(drawn(0, 1), drawn(0, 1), ("",), NOBODY)
    assert "brightness" not in [score.metric.key for score in score_row(one)]
    assert re.search(r"the baseline +brightness of +lower +2\n +pixels\n", help_text())


@pytest.mark.parametrize(("side", "metrics"), [(10, ["psnr"]), (11, ["ssim", "psnr"])])
def test_ssim_is_of_pictures_that_its_window_fits_into(side, metrics):
    pictures = pictures_of_tensor(torch.zeros(2, 3, side, 64, dtype=torch.uint8))
    assert [score.metric.kind for score in score_row(Observed(pictures, pictures, ("",) * 2, NOBODY))] == metrics


def test_help_lists_all_metrics():
    """The lines that wrap are put together again."""
    printed = "".join(help_text().split())
    assert "".join(list_metrics().split()) in printed
    assert "brightness" not in printed


def test_the_page_lists_all_metrics_by_what_they_are_measured_against():
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in PAGE.splitlines() if line.startswith("| ")}
    for metric in METRICS:
        listed = rows[metric.sight.against].split(" | ")[1]
        assert all(part in listed for part in metric.title.split(", ")), metric.title


def test_our_own_numbers_are_not_said_to_be_of_another_library():
    made_with = {score.metric.kind: score.metric.made_with for score in evaluate().rows[0].scores}
    assert made_with == {"ssim": "surgery, Wang et al. 2004", "psnr": "surgery, 10 log10(255^2 / MSE)"}
