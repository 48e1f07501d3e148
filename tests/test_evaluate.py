"""`surgery.evaluate` asks for what `surgery evaluate` asks for."""

import pytest
from typer.testing import CliRunner

import surgery
import surgery.experiment.evaluation
import surgery.face
from surgery.commands.main import app
from surgery.errors import InputError
from surgery.experiment.prompts import PromptSet

GIVEN = {
    "profile": "means.safetensors",
    "model": "demo",
    "reference": "real",
    "extractors": ("bundled", "inception"),
    "clip": "none",
    "lpips": "vgg",
    "cmmd": True,
    "seed": 3,
    "batch_size": 2,
    "bins": 4,
    "engine": "ray",
    "workers": 2,
    "threads": 1,
    "address": "auto",
    "dtype": "bfloat16",
    "device": "cpu",
    "call": {"num_inference_steps": 2},
    "keep_images": "none",
}
SAME = (
    *("--profile", "means.safetensors", "--model", "demo", "--reference", "real", "--extractor", "bundled"),
    *("--extractor", "inception", "--clip", "none", "--lpips", "vgg", "--cmmd", "--seed", "3", "--batch-size", "2"),
    *("--bins", "4", "--engine", "ray", "--workers", "2", "--threads", "1", "--address", "auto"),
    *("--dtype", "bfloat16", "--device", "cpu", "--steps", "2", "--keep-images", "none"),
)


@pytest.fixture
def requests(monkeypatch, tmp_path):
    """What was asked for; nothing is drawn."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("red apple\nrocket\n")
    for name in ("skip", "a", "b"):
        (tmp_path / f"{name}.yaml").write_text("surgery: v1\nmodel: demo\noperations: []\n")
    seen = []

    def refuse(request):
        seen.append(request)
        raise InputError("enough")

    monkeypatch.setattr(surgery.experiment.evaluation, "run_evaluation", refuse)
    return seen


@pytest.mark.parametrize(("given", "same"), [({}, ()), (GIVEN, SAME)], ids=["defaults", "options"])
def test_it_asks_for_what_the_command_asks_for(requests, given, same):
    with pytest.raises(InputError, match="enough"):
        surgery.evaluate("skip.yaml", "prompts.txt", "out", **given)
    result = CliRunner().invoke(app, ["evaluate", "skip.yaml", "--prompts", "prompts.txt", "--out", "out", *same])
    assert result.exit_code == 1
    assert requests[0] == requests[1]


def test_prompts_and_specs_may_be_lists(requests):
    with pytest.raises(InputError, match="enough"):
        surgery.evaluate(["a.yaml", "b.yaml"], ["red apple", "rocket"], "out")
    assert requests[0].specs == ("a.yaml", "b.yaml")
    assert requests[0].prompts == PromptSet(("red apple", "rocket"))
