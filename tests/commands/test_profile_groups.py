"""Specs that take groups from a profile: what the commands show of them, and publish."""

import json

import pytest

from surgery.profiles.profile_file import write_profile

STACK = "transformer_blocks"
REFERENCE = f"p.safetensors#{STACK}.middle"


@pytest.fixture
def spec(made, pipeline, tmp_path):
    """Skips the middle, layers 1 to 3 of 5."""
    write_profile(made.make_profile([(STACK, 5)], starts=(1, 4)), tmp_path / "p.safetensors")
    path = tmp_path / "spec.yaml"
    text = f"surgery: v1\nmodel: {pipeline}\ngroups:\n  middle: {REFERENCE}\noperations:\n  - skip: middle\n"
    path.write_text(text)
    return path


def test_check_shows_the_layers_of_a_group(spec, surgery_command):
    lines = surgery_command("check", spec).stdout.splitlines()
    assert lines[2].split() == [f"{STACK}[5]", "0", "4", "without", "1:4"]
    assert lines[3] == f"  middle = {STACK}[1:4], from {REFERENCE}"
    assert json.loads(surgery_command("check", spec, "--json").stdout)["groups"] == {"middle": f"{STACK}[1:4]"}


def test_a_missing_profile_is_told_with_the_faults_of_the_rest(spec, surgery_command):
    (spec.parent / "p.safetensors").unlink()
    spec.write_text(spec.read_text() + f"  - skip: {STACK}[9]\n  - skp: a[1]\n")
    result = surgery_command("check", spec)
    assert result.exit_code == 1
    assert [line.removeprefix(f"{spec}:").split(": ")[0] for line in result.stderr.splitlines()] == [
        "4:11",
        "7:30",
        "8:5",
        "8:10",
    ]
    assert "p.safetensors can't be read" in result.stderr.splitlines()[0]


def test_a_published_model_says_which_layers_they_were(spec, surgery_command, tmp_path):
    out = tmp_path / "pruned"
    made = surgery_command("compile", spec, "--to", "checkpoint", "--out", out, "--verify", "structure")
    assert made.exit_code == 0, made.output
    for text in [path.read_text() for path in out.rglob("*.yaml")] + [(out / "README.md").read_text()]:
        assert f'middle: "{STACK}[1:4]"  # from {REFERENCE}' in text and str(tmp_path) not in text


def test_a_compiled_graph_needs_no_profile(spec, surgery_command, draw, tmp_path):
    out = tmp_path / "graph"
    made = surgery_command("compile", spec, "--to", "graph", "--out", out)
    assert made.exit_code == 0, made.output
    (tmp_path / "p.safetensors").unlink()
    assert f'middle: "{STACK}[1:4]"' in (out / "spec.yaml").read_text()
    drawn = draw(out, "--prompt", "red apple", "--out", tmp_path / "pictures")
    assert len(drawn["variants"]) == 2
