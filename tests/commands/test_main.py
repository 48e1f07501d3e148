"""The program as a whole: quick help, one kind of error, exit statuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from surgery.commands.main import app
from surgery.commands.output import bytes_text, count_text, share_text

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "demo",
    "inspect",
    "learn",
    "check",
    "diff",
    "generate",
    "compile",
    "evaluate",
    "report",
    "card",
    "remap",
    "profile",
    "plot",
    "suggest",
    "search",
    "heal",
    "train",
    "spectrum",
    "schema",
    "doctor",
]
GROUPS = {"export": ["lokr", "check"]}
HEAVY = ["torch", "diffusers", "transformers", "PIL", "numpy", "matplotlib"]


SAID = """
import contextlib, io, json, sys
from surgery.commands.main import main
said = {{}}
for arguments in {arguments!r}:
    sys.argv = ["surgery", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            main()
        except SystemExit as error:
            status = error.code
    said[" ".join(arguments)] = [status or 0, output.getvalue()]
    loaded = [name for name in {heavy!r} if name in sys.modules]
    assert not loaded, (arguments, loaded)
print(json.dumps(said))
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy():
    """One process asks for all of it, and looks at what is loaded after each."""
    arguments = [["--help"], *([command, "--help"] for command in [*COMMANDS, *GROUPS]), ["export", "lokr", "--help"]]
    done = python(SAID.format(arguments=arguments, heavy=HEAVY))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said) == len(arguments)
    for asked, (status, text) in said.items():
        assert status == 0 and "Usage: surgery" in text, (asked, status, text)


def test_the_import_check_sees_what_is_imported():
    """The saboteur of the test above."""
    done = python("import numpy\n" + SAID.format(arguments=[["--help"]], heavy=HEAVY))
    assert done.returncode == 1 and "AssertionError: (['--help'], ['numpy'])" in done.stderr


def test_help_names_every_command(surgery_command):
    listed = surgery_command("--help").stdout
    assert [command.name for command in app.registered_commands] == COMMANDS
    assert {
        group.name: [c.name for c in group.typer_instance.registered_commands] for group in app.registered_groups
    } == GROUPS
    assert all(command in listed for command in [*COMMANDS, *GROUPS])


def test_a_checkout_runs_without_being_installed():
    done = subprocess.run(
        [sys.executable, "cli.py", "inspect", "/nowhere/at/all"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("there is no folder /nowhere/at/all; ")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"]])
def test_wrong_usage_exits_with_two(surgery_command, arguments):
    assert surgery_command(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (9999, "9999"), (10_000, "10 k"), (12_345_678, "12.3 M"), (11_890_000_000, "11.9 G")]
)
def test_counts_have_three_digits(number, text):
    assert count_text(number) == text


def test_bytes_and_shares_are_decimal():
    assert (bytes_text(13_000_000), bytes_text(12)) == ("13 MB", "12 bytes")
    assert (share_text(1, 8), share_text(1, 0)) == ("12.5%", "0.0%")


@pytest.mark.parametrize("command", ["demo", "generate", "compile", "profile", "evaluate"])
def test_every_long_command_can_be_quiet(command, surgery_command):
    assert "--quiet" in surgery_command(command, "--help").stdout
