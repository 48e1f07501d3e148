"""Every metric of an evaluation has a column, a line of the legend, a panel and a key of the JSON to itself."""

import json

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from surgery.experiment.evaluation import EvaluatedRow, Evaluation
from surgery.experiment.jury import ImageJudge, Judges
from surgery.experiment.scores import score_row
from surgery.experiment.sights import Observed
from surgery.metrics.extractors import module_extractor
from surgery.metrics.feature_cache import features_of
from surgery.metrics.frechet import frechet_distance
from surgery.metrics.pictures import pictures_of_tensor
from surgery.report.evaluation_figure import draw_evaluation
from surgery.report.evaluation_table import evaluation_table, evaluation_text, number_text

NUM = 40  # prompts: the fewest with a Frechet distance
KINDS = {"baseline": "baseline", "skip": "variant", "reseeded": "control", "noise": "control"}


class Colours(nn.Module):
    """uint8 (N, 3, H, W) -> (N, 3): the mean of each colour, times a weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, pictures):
        return pictures.float().mean((2, 3)) * self.weight


def extractor(name, weight):
    return module_extractor(Colours(weight), name=name, resize="none", channels=3)


def drawn(seed, num=NUM):
    pixels = torch.randint(0, 256, (num, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return pictures_of_tensor(pixels)


DINOS = (extractor("dinov2-768", 1.0), extractor("dinov2-384", 2.0), extractor("dinov2-384", 3.0))
REAL = drawn(9, 60)


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """A function: extractors, and kinds of rows by their names -> these rows scored by them."""
    cache = tmp_path_factory.mktemp("features")

    def call(*extractors, rows=KINDS):
        judges = Judges(tuple(ImageJudge(own, features_of(REAL, own)) for own in extractors), (), None, None, cache)
        pictures = {name: drawn(seed) for seed, name in enumerate(rows)}
        scored = [
            EvaluatedRow(
                name, rows[name], own, tuple(score_row(Observed(own, pictures["baseline"], ("",) * NUM, judges)))
            )
            for name, own in pictures.items()
        ]
        return Evaluation(tuple(scored), {"prompts": ["red apple"] * len(scored[0].pictures)}, ())

    return call


@pytest.fixture(scope="module")
def evaluation(evaluate):
    """By three extractors of one kind, two of them of one name."""
    return evaluate(*DINOS)


def titles_of(evaluation, path, monkeypatch):
    """What the panels of the figure are called."""
    found = []
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: found.append(self))
    draw_evaluation(evaluation, path)
    return [axes.get_title() for axes in found[0].axes if axes.get_visible()]


def test_extractors_of_one_kind_have_a_column_each_with_their_own_number(evaluation):
    head, *cells = evaluation_table(evaluation)
    columns = [number for number, text in enumerate(head) if text.startswith("FD-DINOv2")]
    assert len(columns) == 3 and len(set(head)) == len(head)
    for row, line in zip(evaluation.rows, cells, strict=True):
        for number, own in zip(columns, DINOS, strict=True):
            distance = frechet_distance(features_of(row.pictures, own), features_of(REAL, own))
            assert line[number].startswith(f"{number_text(distance)}+-"), (row.name, head[number])


def test_heads_say_as_much_as_tells_them_apart(evaluation):
    digests = [own.digest[:8] for own in DINOS]
    head = evaluation_table(evaluation)[0]
    assert [text for text in head if text.startswith("FD-DINOv2")] == [
        "FD-DINOv2 dinov2-768 down",
        f"FD-DINOv2 dinov2-384 {digests[1]} down",
        f"FD-DINOv2 dinov2-384 {digests[2]} down",
    ]


def test_legend_figure_and_json_follow_the_columns(evaluation, tmp_path, monkeypatch):
    heads = [text.rpartition(" ")[0] for text in evaluation_table(evaluation)[0][1:]]
    assert titles_of(evaluation, tmp_path / "figure.png", monkeypatch) == heads
    legend = evaluation_text(evaluation).splitlines()
    for head, name in zip(heads, [column.name for column in evaluation.columns], strict=True):
        assert head == name or len([line for line in legend if line.startswith(f"{head}: {name}")]) == 1
    for row, document in zip(evaluation.rows, evaluation.to_json()["rows"], strict=True):
        scores = json.loads(json.dumps(document["scores"]))
        assert [score["value"] for score in scores.values()] == [score.interval.value for score in row.scores]
        assert len({score["key"] for score in scores.values()}) == len(scores) == len(heads)


def test_names_that_were_alone_before_are_as_they_were(evaluate):
    """Those who read `evaluation.json` find what they have always found."""
    found = evaluate(extractor("inception-v3", 1.0), DINOS[0], rows={"baseline": "baseline"})
    assert "FD-DINOv2 down" in evaluation_table(found)[0]
    assert list(found.to_json()["rows"][0]["scores"]) == [
        "FID",
        "KID x 1000 (inception-v3)",
        "precision (inception-v3)",
        "recall (inception-v3)",
        "FD-DINOv2 (dinov2-768)",
        "SSIM",
        "PSNR (dB)",
        "feature cosine (inception-v3)",
        "FID to baseline",
    ]
