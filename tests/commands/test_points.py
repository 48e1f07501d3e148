"""Points of sweeps, by the names that every command takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SWEEP = """surgery: v1
model: MODEL
vary: {s: [1, 2], how: {skip: [{skip: "transformer_blocks[{s}]"}], twice: [{repeat: {layers: "transformer_blocks[{s}]", times: 2}}]}}
operations: [how]
"""  # noqa: E501  (one variable a line would be another file)


@pytest.fixture
def sweep(tmp_path, pipeline):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("MODEL", str(pipeline)))
    return path


def test_check_lists_the_points_as_a_shell_takes_them(sweep, surgery_command):
    result = surgery_command("check", sweep, "--points")
    head, price, *lines = result.stdout.splitlines()
    assert price.startswith("  one forward of each: 4 forwards, ")
    assert head == f"{sweep}: valid, a sweep of 4 variants"
    assert [line.split()[0] for line in lines] == [
        f"'{sweep}#s={s},how={how}'" for s in (1, 2) for how in ("skip", "twice")
    ]
    assert lines[0].split(maxsplit=1)[1] == "saves 15.1%   80% of the FLOPs  transformer_blocks[5]: 0 2:5"
    document = json.loads(surgery_command("check", sweep, "--points", "--json").stdout)
    assert document["variants"][3]["spec"] == f"{sweep}#s=2,how=twice"
    assert document["variants"][3]["point"] == {"s": 2, "how": "twice"}


def test_one_point_is_checked_drawn_and_shown_as_a_spec_is(sweep, tmp_path, surgery_command):
    name = f"{sweep}#s=2,how=skip"
    assert surgery_command("check", name).stdout.splitlines()[0] == f"{name}: valid"
    assert json.loads(surgery_command("check", name, "--json").stdout)["spec"] == name
    assert "2      skipped" in surgery_command("check", name, "--show", "graph").stdout
    assert surgery_command("check", name, "--svg", tmp_path / "point.svg").exit_code == 0
    assert (tmp_path / "point.svg").read_text().startswith("<svg")


def test_two_points_are_compared(sweep, surgery_command):
    result = surgery_command("diff", f"{sweep}#s=1,how=skip", f"{sweep}#s=2,how=skip")
    assert result.exit_code == 0
    assert result.stdout.split()[:2] == [f"{sweep}#s=1,how=skip", f"{sweep}#s=2,how=skip"]


@pytest.mark.parametrize("to", ["graph", "checkpoint"])
def test_a_compiled_point_holds_a_spec_of_that_point_alone(sweep, tmp_path, pipeline, surgery_command, to):
    """What is in its folder is read without the sweep."""
    result = surgery_command("compile", f"{sweep}#s=2,how=skip", "--to", to, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    spec = next((tmp_path / "out").rglob("spec.yaml"))
    both = surgery_command("diff", spec, f"{sweep}#s=2,how=skip", "--model", pipeline)
    assert both.stdout.splitlines()[-1].startswith("the same plan")


@pytest.mark.parametrize(
    "command", [("diff", "SWEEP", "SWEEP"), ("compile", "SWEEP", "--to", "graph", "--out", "OUT")], ids=lambda it: it[0]
)
def test_a_sweep_where_one_spec_is_meant_says_the_names_of_its_points(sweep, tmp_path, surgery_command, command):
    filled = [{"SWEEP": sweep, "OUT": tmp_path / "out"}.get(word, word) for word in command]
    result = surgery_command(*filled)
    assert result.exit_code == 1
    assert (
        f"{sweep}:3:8: a sweep (vary) stands for 4 specs; name the one that is meant: '{sweep}#s=1,how=skip'"
        in result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_a_point_that_is_not_there_is_told_once_and_with_its_name(sweep, surgery_command):
    result = surgery_command("check", f"{sweep}#s=9,how=skip", "--json")
    told = f"'{sweep}#s=9,how=skip': the variable s has no value \"9\"; there are 1, 2"
    assert (result.exit_code, result.stderr) == (1, f"{told}\n")
    assert json.loads(result.stdout) == {"spec": f"{sweep}#s=9,how=skip", "faults": [told]}


def test_a_point_is_drawn(sweep, tmp_path, draw):
    recipe = draw(f"{sweep}#s=2,how=skip", "--prompt", "red apple", "--out", tmp_path / "out", "--no-baseline")
    assert [variant["name"] for variant in recipe["variants"]] == ["sweep s=2 how=skip"]
    assert "vary" not in recipe["variants"][0]["spec"]


@pytest.mark.parametrize(
    ("vary", "told"),
    [
        ("{}", "vary is a mapping; write variables, like s: range(0, 13)"),
        ("{s: []}", "the variable s is a list; write a list, range(0, 13), a selector, or cases by name"),
        ('{s: "range(3, 3)"}', "is empty; write one of 1 to 10,000 values"),
        ('{s: "transformer_blocks[9:]"}', "the range matches no layer; transformer_blocks has layers 0 to 4"),
        ("{s: range(200), how: range(100)}", "has 20,000 variants; write a sweep of at most 10,000"),
    ],
)
def test_a_sweep_of_nothing_or_of_more_than_anybody_means_is_told(sweep, surgery_command, vary, told):
    head = sweep.read_text().split("vary: ")[0]
    sweep.write_text(f"{head}vary: {vary}\noperations: []\n")
    result = surgery_command("check", sweep)
    assert result.exit_code == 1 and told in result.stderr, result.stderr


def test_a_point_of_standard_input_is_named_as_a_command_line_takes_it(sweep):
    """Of `-` it would be an option."""
    for name, told in (("-", "'/dev/stdin#s=1,how=skip'"), ("/dev/stdin#s=1,how=skip", "the same plan")):
        command = [sys.executable, ROOT / "cli.py", "diff", name, f"{sweep}#s=1,how=skip"]
        result = subprocess.run(command, input=sweep.read_text(), capture_output=True, text=True, check=False)
        assert told in result.stdout + result.stderr
