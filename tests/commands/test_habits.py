"""What a command line is used to: versions, help, standard input, pipes that close, encodings, exit statuses."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from surgery.commands.main import app
from surgery.commands.output import print_json, say
from surgery.safe_text import show_safely
from surgery.spec.load import load_spec
from surgery.version import __version__

ROOT = Path(__file__).parents[2]
SKIP = ROOT / "specs" / "demo" / "skip.yaml"
PATHS = [
    [],
    *([command.name] for command in app.registered_commands),
    *(
        [g.name, *sub]
        for g in app.registered_groups
        for sub in ([], *([c.name] for c in g.typer_instance.registered_commands))
    ),
]


def surgery(*arguments, given=None, **environment):
    """The program in a process of its own."""
    return subprocess.run(
        [sys.executable, "cli.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        input=given,
        capture_output=True,
        check=False,
    )


def test_the_version_is_printed(surgery_command):
    said = surgery_command("--version")
    assert (said.exit_code, said.stdout) == (0, f"surgery {__version__}\n")


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_has_both_kinds_of_help(path, surgery_command):
    short, long = (surgery_command(*path, option) for option in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0
    assert short.stdout == long.stdout and "Usage:" in short.stdout


@pytest.mark.parametrize("path", [path for path in PATHS if path], ids=" ".join)
def test_wrong_usage_exits_with_two(path, surgery_command):
    assert surgery_command(*path, "--nonsense").exit_code == 2


FAULTY = {
    "demo": ["--out", "{file}"],
    "inspect": ["{nowhere}"],
    "learn": ["{nowhere}"],
    "check": ["{nowhere}"],
    "diff": ["{nowhere}", "{nowhere}"],
    "generate": ["{nowhere}.yaml", "--out", "{out}"],
    "compile": ["{nowhere}", "--to", "graph", "--out", "{out}"],
    "evaluate": ["{nowhere}", "--prompts", "{nowhere}", "--out", "{out}"],
    "report": ["{nowhere}", "--out", "{out}.html"],
    "card": ["{nowhere}", "--evaluation", "{nowhere}"],
    "search": ["{nowhere}", "--prompts", "{nowhere}", "--budget", "blocks=1", "--out", "{out}"],
    "heal": ["{nowhere}", "--prompts", "{nowhere}", "--out", "{out}"],
    "train": ["{nowhere}", "--out", "{out}"],
    "remap": ["{nowhere}", "--spec", "{nowhere}", "--out", "{out}.safetensors"],
    "profile": ["{nowhere}", "--prompts", "{nowhere}", "--out", "{out}.safetensors"],
    "plot": ["{nowhere}", "--out", "{out}"],
    "suggest": ["{nowhere}", "--remove", "1"],
    "spectrum": ["{nowhere}.yaml", "-p", "a", "--out", "{out}"],
    "schema": ["--out", "{file}/x"],
    "doctor": ["{nowhere}"],
    "export lokr": ["{nowhere}"],
    "export check": ["{nowhere}", "--model", "demo"],
}


def test_the_faults_are_of_all_commands():
    groups = {group.name for group in app.registered_groups}
    assert set(FAULTY) == {" ".join(path) for path in PATHS if path and path[-1] not in groups}


@pytest.mark.parametrize("command", FAULTY)
def test_a_fault_of_the_input_exits_with_one(command, surgery_command, tmp_path):
    (tmp_path / "file").write_text("")
    places = {
        "nowhere": str(tmp_path / "nowhere" / "at" / "all"),
        "out": str(tmp_path / "out"),
        "file": str(tmp_path / "file"),
    }
    said = surgery_command(*command.split(), *(argument.format(**places) for argument in FAULTY[command]))
    assert said.exit_code == 1, said.output
    assert not isinstance(said.exception, Exception) or isinstance(said.exception, SystemExit)


def test_an_interrupted_run_exits_with_130():
    code = (
        "import os, signal, sys, time\nfrom surgery.commands import main, check\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background begins without
        "check.find_specs = lambda given: (os.kill(os.getpid(), signal.SIGINT), time.sleep(9))\n"
        "main.check.find_specs = check.find_specs\n"
        "sys.argv = ['surgery', 'check', 'x']\nmain.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (130, False)


@pytest.mark.parametrize("arguments", [("check", "specs/demo"), ("--help",), ("check", "/nowhere")])
def test_a_closed_pipe_ends_it_quietly(arguments):
    """Of the two streams, the one that the command writes to is closed before it begins."""
    reading, writing = os.pipe()
    os.close(reading)
    is_fault = "/nowhere" in arguments
    streams = (
        {"stdout": subprocess.PIPE, "stderr": writing} if is_fault else {"stdout": writing, "stderr": subprocess.PIPE}
    )
    done = subprocess.run([sys.executable, "cli.py", *arguments], cwd=ROOT, check=False, **streams)
    os.close(writing)
    assert (done.returncode, done.stdout or done.stderr or b"") == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)])
def test_an_encoding_without_our_characters_gets_escapes(encoding):
    done = surgery("inspect", "demo", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u2514\u2500 [0:12] BasicTransformerBlock" in done.stdout


def test_json_is_json_in_every_encoding(tmp_path):
    spec = tmp_path / "é😀.yaml"
    spec.write_text("surgery: v1\nmodel: demo\noperations: []\n")
    documents = [
        json.loads(surgery("check", spec, "--json", PYTHONIOENCODING=name).stdout) for name in ("ascii", "utf-8")
    ]
    assert documents[0] == documents[1] and documents[0]["spec"] == str(spec)


def test_a_file_name_that_is_no_text_is_told():
    done = surgery("check", os.fsdecode(b"/nowhere/\xff\x1b[31m.yaml"))
    assert (done.returncode, done.stderr) == (
        1,
        b"/nowhere/\\udcff\\x1b[31m.yaml can't be read: No such file or directory\n",
    )


def test_a_spec_is_read_from_standard_input(surgery_command):
    """All commands load specs in one place; `check`, `diff` and the language alone stand for them here."""
    text = SKIP.read_bytes()
    assert surgery("check", "-", given=text).stdout.startswith(b"<stdin>: Layers 5 to 7 left out\n")
    assert surgery_command("check", "-", "--language-only", given=text).stdout.startswith("<stdin>: valid language")
    assert json.loads(surgery_command("diff", "-", SKIP, "--json", given=text).stdout)["same_plan"]
    assert json.loads(surgery_command("check", "-", "--json", given=text).stdout)["spec"] == "<stdin>"


def test_a_fault_on_standard_input_is_placed(surgery_command):
    done = surgery_command("check", "-", given=SKIP.read_bytes().replace(b"skip:", b"skp:"))
    assert done.exit_code == 1
    assert re.match(r'<stdin>:\d+:5: there is no key "skp"', done.stderr)


def test_files_in_a_spec_on_standard_input_are_relative_to_here(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(SKIP.read_bytes())))
    spec = load_spec("-")
    assert (spec.folder, spec.file, spec.name) == (Path(), "<stdin>", "stdin")
    assert load_spec("-") == spec, "`evaluate` loads a spec more than once"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(SKIP.read_bytes() + b"\n# another\n")))
    assert load_spec("-").text != spec.text


@pytest.mark.parametrize(
    "command", [["diff"], ["generate", "--out", "o"], ["evaluate", "--prompts", "p", "--out", "o"]]
)
def test_standard_input_holds_one_spec(command, surgery_command):
    said = surgery_command(*command, "-", "-")
    assert said.exit_code == 2 and "standard input, which holds one spec" in said.stderr


@pytest.mark.parametrize("shell", ["bash", pytest.param("zsh", marks=pytest.mark.slow)])
def test_the_shell_completes_commands_and_options(shell):
    words = {"_TYPER_COMPLETE_ARGS": "surgery insp", "COMP_WORDS": "surgery insp", "COMP_CWORD": "1"}
    done = surgery(**{"_CLI.PY_COMPLETE": f"complete_{shell}", **words})
    assert b"inspect" in done.stdout


UNSAFE = ("\x1b[2J", "\x9b31m", "a\rb", "\x07", "\x7f", "\u202e", "\u2066", "\u200f", "\u2028", "\x85")


@pytest.mark.parametrize("text", UNSAFE, ids=ascii)
def test_what_steers_a_terminal_is_shown_and_not_sent(text, capsys):
    assert show_safely(text).isprintable()
    say(text)
    say(text, err=True)
    assert all(shown.strip("\n").isprintable() for shown in capsys.readouterr())


@pytest.mark.parametrize("text", ["≠ ─ é 漢 😀", "two\nlines\t.", "🏳️‍🌈"])
def test_other_text_is_shown_as_it_is(text):
    assert show_safely(text) == text


def test_json_keeps_what_a_terminal_does_not_get(capsys):
    print_json({"title": "\x1b[2J\u202e"})
    assert json.loads(capsys.readouterr().out) == {"title": "\x1b[2J\u202e"}


def test_a_title_does_not_reach_the_terminal_raw(surgery_command, tmp_path):
    spec = tmp_path / "s.yaml"
    spec.write_text('surgery: v1\nmodel: demo\ntitle: "a\\e[2J\\u202Eb"\noperations: []\n')
    assert f"{spec}: a\\x1b[2J\\u202eb\n" in surgery_command("check", spec).stdout


def test_commands_write_in_one_way():
    """Whatever they print goes through `output.py`, where it is made safe."""
    folder = ROOT / "surgery" / "commands"
    writers = [
        path.name
        for path in folder.glob("*.py")
        if re.search(r"typer\.echo\(|(?<!\w)print\(|\.secho\(", path.read_text())
    ]
    assert writers == ["output.py"]
