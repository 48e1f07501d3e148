"""The bundled pipeline without three of its blocks, healed for real: minutes."""

import json
from pathlib import Path

import pytest

import surgery
from surgery.bundled import DEMO_CALL

EXPORTS = Path(__file__).parents[2] / "exports" / "demo"


@pytest.mark.slow
def test_a_few_steps_take_a_third_of_the_error_of_the_bundled_pipeline_away(tmp_path):
    spec = tmp_path / "skip.yaml"
    spec.write_text('surgery: v1\nmodel: demo\noperations:\n  - skip: "transformer_blocks[2, 5, 8]"\n')
    pruned = surgery.compile_checkpoint(spec, tmp_path / "pruned", verify="structure")
    held_out = (EXPORTS / "heldout.txt").read_text().splitlines()[:16]
    healed = surgery.heal(
        pruned,
        tmp_path / "healed",
        surgery.TrainingSettings(steps=30, learning_rate=6e-4, schedule="cosine", validate_every=15),
        prompts=EXPORTS / "prompts.txt",
        held_out=held_out,
        latents_per_prompt=1,
        trajectory_steps=4,
        batch_size=32,
        bins=5,
        device="cpu",
        call=DEMO_CALL,
    )
    validation = json.loads((healed.folder / "surgery.json").read_text())["healed"]["validation"]
    assert 0.5 < validation["before"] < 0.8
    assert validation["after"] < 2 / 3 * validation["before"]
