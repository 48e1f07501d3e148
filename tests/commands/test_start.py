"""What starts at once: no heavy library is imported where none is needed, in a fresh process as a user has it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from surgery.testing import build_tiny_model

SPECS = Path(__file__).parents[2] / "specs"
HEAVY = ("torch", "diffusers", "transformers", "numpy", "huggingface_hub", "accelerate", "safetensors", "PIL")
CODE = """
import contextlib, io, json, sys
from surgery.commands.main import main
for arguments in {commands!r}:
    sys.argv = ["surgery", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            main()
        except SystemExit as error:
            status = error.code or 0
    loaded = [name for name in {heavy!r} if name in sys.modules]
    print(json.dumps([status, loaded, output.getvalue()]))
"""


def run_fresh(*commands, **environment):
    """Of commands in one fresh process: exit status, the heavy libraries that are loaded after it, what it printed."""
    code = CODE.format(commands=[[str(argument) for argument in command] for command in commands], heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


LIGHT = [
    ["schema"],
    ["check", SPECS / "demo"],
    ["check", SPECS / "demo" / "parallel.yaml"],
    ["check", SPECS / "demo" / "parallel.yaml", "--show", "graph"],
    ["inspect", "demo"],
    ["diff", SPECS / "demo" / "skip.yaml", SPECS / "demo" / "reverse.yaml"],
]


def test_nothing_heavy_is_loaded():
    """One process runs all of them, and looks at what is loaded after each; that of help is seen in test_main.py."""
    for arguments, (status, names, printed) in zip(LIGHT, run_fresh(*LIGHT), strict=True):
        assert (arguments, status, names) == (arguments, 0, [])
        assert printed.strip(), arguments


@pytest.mark.slow
def test_a_model_that_was_seen_once_is_known_without_torch(tmp_path):
    """The first check builds the model, the next ones know it; a changed config is another model."""
    model = build_tiny_model("sd3")
    config = tmp_path / "model" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({**model.config, "_class_name": type(model).__name__}))
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"surgery: v1\nmodel: {config.parent}\noperations: [{{skip: 'transformer_blocks[1]'}}]\n")
    cache = {"SURGERY_CACHE": str(tmp_path / "cache")}
    (first,) = run_fresh(["check", spec], **cache)
    (second,) = run_fresh(["check", spec], **cache)
    assert first[0] == second[0] == 0
    assert {"torch", "diffusers"} <= set(first[1]) and second[1] == []
    assert first[2] == second[2]
    config.write_text(config.read_text().replace('"num_layers": 5', '"num_layers": 6'))
    ((_, names, _),) = run_fresh(["check", spec], **cache)
    assert "torch" in names


@pytest.mark.slow
def test_a_library_that_is_loaded_is_noticed():
    """The check can fail."""
    ((_, names, _),) = run_fresh(["check", SPECS / "demo" / "skip.yaml", "--show", "code"])
    assert {"torch", "diffusers"} <= set(names)
