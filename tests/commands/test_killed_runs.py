"""A long command that is killed at any moment: the same command, given again, ends as if it had not been."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMPTS = ("-p", "red apple", "-p", "rocket", "-p", "hamburger")
COMMANDS = {
    "generate": ("generate", ROOT / "specs" / "demo" / "skip.yaml", *PROMPTS, "--steps", "2", "--batch-size", "1"),
    "profile": ("profile", "demo", *PROMPTS, "--steps", "4", "--batch-size", "1", "--mean-states"),
    "evaluate": (
        *("evaluate", ROOT / "specs" / "demo" / "skip.yaml", "--prompts", "prompts.txt", "--keep-images", "all"),
        *("--steps", "2", "--batch-size", "1", "--bins", "1", "--extractor", "none", "--clip", "none"),
    ),
}
OUT = {"profile": "profile.safetensors"}
SECONDS = 120  # that a run may take to begin
RUNS_SECONDS = 3  # about as long as one writes
WITHOUT = ".surgery.json", "recipe.json", "pictures.json"  # in other order, or of the store


@pytest.fixture(scope="module")
def undisturbed(surgery_command, tmp_path_factory):
    """A function: the name of a command -> what it writes when nobody kills it."""
    found = {}

    def run(name):
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            found[name] = finish(surgery_command, folder, name)
        return found[name]

    return run


def finish(surgery_command, folder, name):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "prompts.txt").write_text("red apple\nrocket\n")
        result = surgery_command(*COMMANDS[name], "--out", OUT.get(name, "out"))
    assert result.exit_code == 0, result.output
    return contents(folder)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in WITHOUT
    }


def kill(folder, name, seconds):
    """Start a command, and kill it so many seconds after it began to write."""
    (folder / "prompts.txt").write_text("red apple\nrocket\n")
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, COMMANDS[name]), "--out", OUT.get(name, "out")]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + SECONDS
    while len(list(folder.iterdir())) == 1 and process.poll() is None:
        assert time.monotonic() < end, "it never began"
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    assert process.wait() in (0, -signal.SIGKILL)
    return process.returncode


def is_whole(folder, name):
    return (
        folder / {"evaluate": "out/evaluation.json", "generate": "out/recipe.json"}.get(name, OUT.get(name))
    ).exists()


def kill_and_finish(folder, name, seconds, surgery_command):
    folder.mkdir()
    kill(folder, name, seconds)
    if not is_whole(folder, name):
        return finish(surgery_command, folder, name)
    return contents(folder)


@pytest.mark.parametrize(
    "name",
    [name if name == "evaluate" else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS],
)  # how a profile goes on, to the bit, is seen in test_profiling.py without a process
def test_a_killed_run_is_made_good_by_the_next(name, undisturbed, surgery_command, tmp_path):
    seconds = random.Random(name).uniform(0, RUNS_SECONDS)
    assert kill_and_finish(tmp_path / "run", name, seconds, surgery_command) == undisturbed(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name in COMMANDS for number in range(30 if name == "evaluate" else 5)]
)
def test_a_run_that_is_killed_at_a_random_moment(name, number, undisturbed, surgery_command, tmp_path):
    seconds = random.Random(f"{name} {number}").uniform(0, RUNS_SECONDS)
    assert kill_and_finish(tmp_path / "run", name, seconds, surgery_command) == undisturbed(name)
