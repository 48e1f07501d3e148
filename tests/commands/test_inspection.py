"""`surgery inspect`: what a spec can name."""

import json
from dataclasses import asdict

import pytest

import surgery
from surgery.commands.inspection import describe_anatomy, list_selectors
from surgery.plan.lower import lower_spec
from surgery.spec.load import read_spec


def test_text_shows_stacks_and_components(pipeline, surgery_command):
    result = surgery_command("inspect", pipeline)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{pipeline}: PixArtTransformer2DModel, ")
    assert "transformer_blocks[0:5]" in result.stdout
    assert "  streams hidden_states" in result.stdout
    assert "attn1" in result.stdout and "attn1.to_q" not in result.stdout
    assert "(float16)" in result.stdout


def test_depth_lists_components_of_components(pipeline, surgery_command):
    assert "attn1.to_q" in surgery_command("inspect", pipeline, "--depth", "2").stdout


def test_json_is_the_anatomy(pipeline, surgery_command):
    result = surgery_command("inspect", pipeline, "--json")
    anatomy = surgery.inspect(pipeline)
    expected = json.loads(json.dumps({**asdict(anatomy), "example": dict(anatomy.example)}))
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == expected


def test_kinds_and_refusals_are_told(anatomies):
    text = describe_anatomy("sd3", anatomies["sd3"])
    assert "returns no encoder_hidden_states: last, or left out" in text
    assert "can't be replaced: its output 1 is not token-shaped" in text


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_missing_model_is_told_in_one_line(surgery_command, as_json):
    result = surgery_command("inspect", "/nowhere/at/all", *as_json)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("there is no folder /nowhere/at/all; ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [(), ("demo", "--depth", "0"), ("demo", "--nonsense"), ("a", "b")])
def test_wrong_usage_exits_with_two(surgery_command, arguments):
    assert surgery_command("inspect", *arguments).exit_code == 2


def test_the_tree_is_drawn_with_shares(anatomies):
    lines = describe_anatomy("flux", anatomies["flux"]).splitlines()
    assert [line[:2] for line in lines[1:]] == ["├─", *["│ "] * 5, "├─", *["│ "] * 4, "└─"]
    assert lines[1].split()[1:4] == ["transformer_blocks[0:19]", "190", "k"] and "33.3%" in lines[1]
    assert lines[-1].split()[1:] == ["everything", "else", "0", "0.0%"]


def test_names_are_just_what_a_spec_can_say(anatomies, pipeline):
    """Each line is a selector that names something, and each component can be replaced."""
    for anatomy in (*anatomies.values(), surgery.inspect(pipeline)):
        for depth in (1, 3):
            names = list(list_selectors(anatomy, depth=depth))
            assert len(names) == len(set(names)) > len(anatomy.stacks)
            for name in names:
                verb = f"replace: {{component: '{name}', with: zero}}" if "]." in name else f"skip: '{name}'"
                plan = lower_spec(read_spec(f"surgery: v1\noperations:\n  - {verb}\n"), anatomy)
                assert not plan.is_identity


def test_names_leave_out_what_a_block_does_not_have(anatomies, surgery_command):
    names = list(list_selectors(anatomies["sd3"]))
    assert "transformer_blocks[0:24].attn" in names and "transformer_blocks[0:23].ff_context" in names
    assert not any(".norm1" in name for name in names)
    printed = surgery_command("inspect", "demo", "--names").stdout.splitlines()
    assert printed[0] == "transformer_blocks[0:12]" and "transformer_blocks[0:12].attn1" in printed
    assert json.loads(surgery_command("inspect", "demo", "--names", "--json").stdout) == printed
