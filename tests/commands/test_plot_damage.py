"""`surgery plot` of an evaluation: the whole way on the bundled pipeline, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from evaluations_made import STACK, write_evaluation
from scipy.stats import spearmanr

from surgery.profiles.profile_file import read_profile, write_profile

LAYERS = [0, 5, 11]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an evaluation of six layers in two bins, and a profile of as many."""
    monkeypatch.chdir(tmp_path)
    write_evaluation(tmp_path / "out", {(STACK, "skip"): np.random.default_rng(0).random((2, 6))}, {STACK: 6})
    return tmp_path


def test_a_sweep_over_single_skips_is_measured_drawn_and_compared(tmp_path, monkeypatch, surgery_command):
    """Every cell is the error of the row that skips the layer, and the correlation that of scipy with the profile."""
    monkeypatch.chdir(tmp_path)
    Path("each.yaml").write_text(
        f"surgery: v1\nmodel: demo\nvary: {{layer: {LAYERS}}}\noperations: [skip: 'transformer_blocks[{{layer}}]']\n"
    )
    Path("prompts.txt").write_text("red apple\nrocket\n")
    shared = ("--prompts", "prompts.txt", "--steps", "2", "--bins", "1", "--quiet")
    judges = ("--extractor", "none", "--clip", "none", "--lpips", "none", "--keep-images", "none")
    for arguments in (
        ("evaluate", "each.yaml", *shared, *judges, "--out", "out"),
        ("profile", "demo", *shared, "--out", "p.safetensors"),
    ):
        done = surgery_command(*arguments)
        assert done.exit_code == 0, done.output
    rows = {row["name"]: row for row in json.loads(Path("out/evaluation.json").read_text())["rows"]}
    result = surgery_command("plot", "out", "--beside", "p.safetensors", "--out", "plots", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["bins"], document["prompts"], document["left_out"]) == (1, 2, {})
    assert document["files"] == ["plots/damage_transformer_blocks.png"] and Path(document["files"][0]).is_file()
    (found,) = document["maps"]
    assert (found["stack"], found["edit"], found["layers"]) == (STACK, "skip", LAYERS)
    cells = np.array(found["denoising_error"], dtype=float)
    for layer in range(12):
        row = rows.get(f"each layer={layer}")
        assert (
            np.isnan(cells[:, layer]).all() if row is None else list(cells[:, layer]) == row["denoising_error_by_bin"]
        )
    (agreement,) = document["agreement"]
    angles = read_profile("p.safetensors").angular(STACK, "hidden_states")
    expected = spearmanr(cells[0, LAYERS], angles[0, LAYERS]).statistic
    assert agreement["by_bin"][0]["value"] == pytest.approx(expected)
    said = surgery_command("plot", "out/evaluation.json", "--beside", "p.safetensors", "--out", "plots")
    assert said.exit_code == 0 and "N = 2 prompts; +- is half of the 95% interval" in said.stdout
    assert "Does angular distance predict damage?" in said.stdout and "  skip: over all times not shown" in said.stdout


def test_without_a_profile_the_map_stands_alone(here, surgery_command):
    result = surgery_command("plot", "out", "--out", "plots", "--format", "svg", "--theme", "both", "--json")
    document = json.loads(result.stdout)
    assert document["files"] == [f"plots/damage_{STACK}.svg", f"plots/damage_{STACK}_dark.svg"]
    assert document["agreement"] == [] and "predict" not in result.stdout
    again = surgery_command("plot", "out/evaluation.json", "--out", "plots", "--format", "svg")
    assert again.exit_code == 0 and "Does angular" not in again.stdout


def test_what_is_no_evaluation_is_told(here, surgery_command):
    (here / "empty").mkdir()
    result = surgery_command("plot", "empty", "--out", "plots")
    assert (result.exit_code, result.stderr) == (
        1,
        "empty has no evaluation.json; give a profile, or the folder of a finished `surgery evaluate`\n",
    )
    (here / "recipe.json").write_text('{"prompts": []}')
    result = surgery_command("plot", "recipe.json", "--out", "plots")
    assert (result.exit_code, result.stderr) == (
        1,
        "recipe.json is no evaluation: `surgery evaluate SPEC... --prompts FILE --out DIR` writes one\n",
    )
    result = surgery_command("plot", "absent.json", "--out", "plots")
    assert result.exit_code == 1 and "the evaluation absent.json can't be read: No such file" in result.stderr
    assert not (here / "plots").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out", "--groups", "4"), "that is for figures of a profile; leave it out"),
        (("out", "--by-time"), "that is for figures of a profile; leave it out"),
        (("out", "--stream", "hidden_states"), "that is for a profile, or for --beside; leave it out"),
        (("out", "--part", "text"), "that is for a profile, or for --beside; leave it out"),
        (("p.safetensors", "--beside", "p.safetensors"), "that is for the folder of an evaluation, in place of the"),
    ],
)
def test_options_that_would_do_nothing_are_refused(here, made, surgery_command, arguments, message):
    write_profile(made.make_profile([(STACK, 6)], num_bins=2), here / "p.safetensors")
    result = surgery_command("plot", *arguments, "--out", "plots")
    assert result.exit_code == 2 and message in " ".join(result.stderr.replace("│", " ").split())


def test_a_part_and_a_stream_of_the_profile_are_compared(here, made, surgery_command):
    both = made.make_profile([(STACK, 6)], streams=("a", "b"), branches=("conditional", "unconditional"), num_bins=2)
    write_profile(both, here / "p.safetensors")
    asked = ("--beside", "p.safetensors", "--stream", "b", "--part", "unconditional")
    document = json.loads(surgery_command("plot", "out", "--out", "plots", *asked, "--json").stdout)
    (found,) = document["agreement"]
    cells = np.array(document["maps"][0]["denoising_error"])
    expected = spearmanr(cells[1], both.angular(STACK, "b", "unconditional")[1]).statistic
    assert found["stream"] == "b" and found["by_bin"][1]["value"] == pytest.approx(expected)
    absent = surgery_command("plot", "out", "--out", "plots", "--beside", "p.safetensors", "--part", "text")
    assert absent.exit_code == 1 and "the profile has no part text; it has conditional, unconditional" in absent.stderr
