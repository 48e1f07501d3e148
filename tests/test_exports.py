"""What lies in exports/ is what the commands in its README make."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from peft.tuners.lora import LoraLayer
from typer.testing import CliRunner

from surgery.bundled import demo_folder
from surgery.commands.main import app
from surgery.profiles.profile_file import ARRAYS, read_profile

ROOT = Path(__file__).parents[1]
EXPORTS = ROOT / "exports"
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"^```bash\n(.*?)^```$", (EXPORTS / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("surgery ")
]
MADE = {command[command.index("--out") + 1]: command for command in COMMANDS if "--out" in command}


def run_elsewhere(name, tmp_path, monkeypatch):
    """Run the command that makes a file of exports/, with another file as its target."""
    monkeypatch.chdir(ROOT)
    out = tmp_path / Path(name).name
    result = CliRunner().invoke(app, [str(out) if argument == name else argument for argument in MADE[name]])
    assert result.exit_code == 0, result.output
    return out


def test_every_file_has_its_command():
    files = {str(path.relative_to(ROOT)) for path in EXPORTS.rglob("*") if path.is_file()}
    given = {"exports/README.md", *(f"exports/demo/{name}.txt" for name in ("prompts", "heldout", "train"))}
    assert files - given == set(MADE)


def test_no_caption_is_in_two_files():
    """What is measured on was neither chosen by nor learnt from."""
    lines = [line for path in EXPORTS.glob("demo/*.txt") for line in path.read_text().splitlines()]
    assert len(lines) == len(set(lines)) == 64 + 64 + 1015


@pytest.mark.parametrize("name", [name for name in MADE if name.startswith("exports/demo/") and "profile" not in name])
def test_configs_are_made_again_to_the_byte(name, tmp_path, monkeypatch):
    pytest.importorskip("lycoris", reason="LyCORIS is not installed")
    assert run_elsewhere(name, tmp_path, monkeypatch).read_text() == (ROOT / name).read_text()


def test_the_lora_of_the_demo_is_put_on_the_bundled_pipeline():
    """`add_adapter` is not there for its class; the config runs as it is."""
    transformer = DiffusionPipeline.from_pretrained(demo_folder()).transformer
    exec((EXPORTS / "demo" / "lora_config.py").read_text(), {"transformer": transformer})
    layers = {name: module for name, module in transformer.named_modules() if isinstance(module, LoraLayer)}
    ranks = {int(name.split(".")[1]): module.r["default"] for name, module in layers.items()}
    assert len(layers) == 120 and (ranks[0], ranks[3], ranks[11]) == (13, 1, 16)
    assert {module.scaling["default"] for module in layers.values()} == {1.0}


@pytest.mark.slow
def test_the_profile_is_measured_again(tmp_path, monkeypatch):
    """On another machine sums are rounded otherwise, and pictures drift apart by little."""
    found = read_profile(run_elsewhere("exports/demo/profile.safetensors", tmp_path, monkeypatch))
    kept = read_profile(EXPORTS / "demo" / "profile.safetensors")
    assert found.recipe["samples"] == kept.recipe["samples"] and found.streams.keys() == kept.streams.keys()
    for key, sums in kept.streams.items():
        for name in ARRAYS:
            assert np.allclose(getattr(found.streams[key], name), getattr(sums, name), rtol=1e-3, atol=1e-3), (
                key,
                name,
            )
