"""`surgery train`: from a config to a folder that the other commands take; and what it says of faults."""

import json

import numpy as np
import pytest
from PIL import Image

from surgery.dit import DiT, read_channel_gates

CONFIG = """train: v1
model: {conditioning: freq_gate, hidden_size: 16, num_layers: 3, num_attention_heads: 2, patch_size: 4}
data: {pictures: digits}
training: {steps: 9, batch_size: 8}
losses: {spectral: 0.1}
validation: {pictures: 20, every: 2, bins: 2}
sampling: {every: 0}
"""


@pytest.fixture(scope="module")
def trained(surgery_command, tmp_path_factory):
    """A folder that the command wrote, beside its config; and what it said."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "train.yaml").write_text(CONFIG)
    said = surgery_command(
        *("train", folder / "train.yaml", "--out", folder / "out", "--steps", 2, "--seed", 3, "--device", "cpu"),
        *("--log-gates", "--json"),
    )
    assert said.exit_code == 0, said.stderr
    assert "measuring the model as it is" in said.stderr  # on a large model it is long before the first step
    return folder / "out", json.loads(said.stdout)


def test_the_options_come_before_the_config(trained):
    out, document = trained
    assert document["out"] == str(out) and (document["steps"], document["settings"]["seed"]) == (2, 3)
    assert [step for step, _ in document["validation"]["history"]] == [0, 2]
    assert document == {"out": str(out), **json.loads((out / "training.json").read_text())}
    assert not (out.parent / "out.training" / "samples").exists()


def test_gates_are_read_out_at_the_middles_of_the_bins(trained):
    gates = trained[1]["gates"]
    assert gates["shares"] == [0.25, 0.75] and [len(block) for block in gates["low"]] == [2, 2, 2]
    assert all(0 < value < 1 for block in gates["low"] for value in block)
    model = DiT.from_pretrained(trained[0] / "transformer")
    channels = read_channel_gates(model, [250, 750])
    np.testing.assert_allclose(gates["low"], channels.mean(dim=-1), atol=1e-6)
    np.testing.assert_allclose(gates["spread"], channels.std(dim=-1, correction=0), atol=1e-6)


def test_logged_gates_are_kept_with_every_measure_and_drawn(trained):
    """After each measure of the averaged weights; the last is of the weights that were kept, if these measured best."""
    out, document = trained
    course = document["gates"]["course"]
    assert [one["step"] for one in course] == [0, 2] == [step for step, _ in document["validation"]["history"]]
    best = next(one["low"] for one in course if one["step"] == document["validation"]["step"])
    np.testing.assert_allclose(best, document["gates"]["low"], atol=1e-6)
    assert set(document["validation"]["bins"]) == {"0.25", "0.75"}
    with Image.open(out.parent / "out.training" / "gates.png") as drawn:
        assert len(drawn.convert("RGB").getcolors(drawn.width * drawn.height)) > 3, "lines are drawn on it"


def test_gates_of_a_model_without_any_are_not_logged(surgery_command, tmp_path):
    (tmp_path / "train.yaml").write_text(CONFIG.replace("freq_gate", "adaln_zero"))
    said = surgery_command("train", tmp_path / "train.yaml", "--out", tmp_path / "out", "--log-gates")
    assert said.exit_code == 1 and not (tmp_path / "out").exists()
    assert "train.yaml:2:23: a DiT of conditioning adaln_zero has no gates to log; write freq_gate, or" in said.stderr


@pytest.mark.parametrize(("command", "written"), [("generate", "contact_sheet.png"), ("spectrum", "spectrum.json")])
def test_what_was_trained_is_drawn_with_and_analysed(trained, surgery_command, tmp_path, command, written):
    drawn = ("--prompt", "3", "--prompt", "7", "--steps", 2, "--device", "cpu")
    said = surgery_command(command, trained[0], *drawn, "--out", tmp_path / "out")
    assert said.exit_code == 0, said.stderr
    assert (tmp_path / "out" / written).is_file()


def test_a_spec_is_checked_and_compiled_for_what_was_trained(trained, surgery_command, tmp_path):
    (tmp_path / "spec.yaml").write_text(
        f"surgery: v1\nmodel: {trained[0]}\noperations:\n  - skip: transformer_blocks[1]\n"
    )
    checked = surgery_command("check", tmp_path / "spec.yaml")
    assert checked.exit_code == 0, checked.stderr
    compiled = surgery_command("compile", tmp_path / "spec.yaml", "--to", "checkpoint", "--out", tmp_path / "pruned")
    assert compiled.exit_code == 0, compiled.stderr


def test_faults_of_a_config_are_told_without_a_folder(surgery_command, tmp_path):
    (tmp_path / "train.yaml").write_text(CONFIG.replace("steps: 9", "step: x").replace("share", "shar"))
    said = surgery_command("train", tmp_path / "train.yaml", "--out", tmp_path / "out")
    assert said.exit_code == 1 and 'train.yaml:4:12: there is no key "step" in training' in said.stderr
    assert 'train.yaml:4:18: steps is "x"' in said.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.yaml"]
