"""Profiles from Python are those of the command."""

from pathlib import Path

import numpy as np
from diffusers import DiffusionPipeline
from typer.testing import CliRunner

import surgery
from surgery.bundled import DEMO_CALL, demo_folder
from surgery.commands.main import app
from surgery.experiment import profiling
from surgery.profiles.profile_file import ARRAYS, read_profile

PROMPTS = ["red apple", "rocket", "guitar"]


def test_times_of_pictures_are_uniform_and_each_sample_has_its_own():
    """Kolmogorov and Smirnov's distance to the uniform law is below its 1% bound, 1.63 / sqrt(n)."""
    pairs = [profiling.CaptionedPicture(Path("a.png"), "a"), profiling.CaptionedPicture(Path("b.png"), "b")]
    asked = profiling.list_samples(
        profiling.ProfileRequest(model="demo", out=Path(), pictures=Path(), samples=400, seed=7), pairs
    )
    times = np.sort([sample.share for sample in asked])
    assert np.abs(times - (np.arange(400) + 0.5) / 400).max() < 1.63 / 400**0.5
    assert [sample.seed for sample in asked] == list(range(7, 407))
    assert all(sample.of.file.is_absolute() for sample in asked)  # another process may run in another folder
    assert [sample.text for sample in asked[:4]] == ["a", "b", "a", "b"]


def test_a_pipeline_is_measured_as_by_the_command(tmp_path):
    pipe = DiffusionPipeline.from_pretrained(demo_folder())
    pipe.set_progress_bar_config(disable=True)
    call = {**DEMO_CALL, "num_inference_steps": 3}
    found = surgery.profile(pipe, PROMPTS, seed=4, batch_size=2, bins=5, call=call)
    out = str(tmp_path / "p.safetensors")
    prompts = [part for prompt in PROMPTS for part in ("-p", prompt)]
    options = ["--steps", "3", "--seed", "4", "--batch-size", "2", "--bins", "5", "--out", out]
    assert CliRunner().invoke(app, ["profile", "demo", *prompts, *options]).exit_code == 0
    written = read_profile(out)
    assert found.streams.keys() == written.streams.keys() and found.components.keys() == written.components.keys()
    for key, sums in found.streams.items():
        for name in ARRAYS:
            assert np.allclose(getattr(sums, name), getattr(written.streams[key], name), rtol=1e-12)
    assert sorted(found.recipe["samples"]) == written.recipe["samples"]
