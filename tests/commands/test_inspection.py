"""`surgery inspect`: what a spec can name."""

import json
from dataclasses import asdict

import pytest

import surgery
from surgery.commands.inspection import describe_anatomy, ranges_text


def test_text_shows_stacks_and_components(pipeline, surgery_command):
    result = surgery_command("inspect", pipeline)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{pipeline}: PixArtTransformer2DModel, ")
    assert "transformer_blocks[0:5]" in result.stdout
    assert "streams: hidden_states" in result.stdout
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
    assert "returns no encoder_hidden_states: it can only run last, or be left out" in text
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


@pytest.mark.parametrize(
    ("indices", "text"), [([], ""), ([3], "3"), ([0, 1], "0:2"), ([0, 1, 2, 5], "0:3, 5"), ([1, 3, 4], "1, 3:5")]
)
def test_ranges_are_half_open(indices, text):
    assert ranges_text(indices) == text
