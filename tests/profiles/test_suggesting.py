"""`surgery.suggest`: the spec that the command writes, from a file or from a profile at hand."""

import pytest
from typer.testing import CliRunner

import surgery
from surgery.commands.main import app
from surgery.profiles.profile_file import write_profile

STACK = "transformer_blocks"


@pytest.fixture(scope="module")
def profile(made):
    return made.make_profile([(STACK, 12)], branches=("conditional", "unconditional"), model="demo")


@pytest.fixture
def path(profile, tmp_path):
    write_profile(profile, tmp_path / "p.safetensors")
    return tmp_path / "p.safetensors"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--remove", "2"], {"remove": 2}),
        (["--keep", "0.75", "--by", "greedy", "--forbid", "none"], {"keep": 0.75, "by": "greedy", "forbid": ["none"]}),
        (["--repeat", "3", "--stack", STACK], {"repeat": 3, "stack": STACK}),
        (
            ["--remove", "1", "--part", "conditional", "--stream", "hidden_states", "--model", "demo"],
            {"remove": 1, "part": "conditional", "stream": "hidden_states", "model": "demo"},
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_the_spec_is_the_one_that_the_command_writes(path, arguments, wanted):
    spec = surgery.suggest(path, **wanted)
    assert spec.text == CliRunner().invoke(app, ["suggest", str(path), *arguments]).stdout
    assert spec.text == surgery.suggest(str(path), **wanted).text


def test_a_profile_at_hand_gives_the_same_operations_and_names_no_file(profile, path):
    spec, from_file = surgery.suggest(profile, remove=2), surgery.suggest(path, remove=2)
    assert spec.text.startswith("# Suggested from a profile of demo: 2 samples, trajectories.\n")
    assert spec.text.partition("surgery: v1")[2] == from_file.text.partition("surgery: v1")[2]
    assert spec.operations and surgery.check(spec) == surgery.check(from_file)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "give one of remove, keep and repeat"),
        ({"remove": 1, "repeat": 1}, "give one of remove, keep and repeat"),
        ({"repeat": 1, "by": "greedy"}, "greedy leaves layers out"),
        ({"remove": 0}, "ask for one or more"),
        ({"remove": 11}, "11 layers can't be chosen"),
        ({"remove": 1, "stack": "blocks"}, "the profile has no stack blocks"),
        ({"remove": 1, "by": "magic"}, "by magic; write one of influence, span, greedy"),
    ],
    ids=str,
)
def test_what_can_not_be_suggested_is_told(profile, wanted, message):
    with pytest.raises(surgery.InputError, match=message):
        surgery.suggest(profile, **wanted)
