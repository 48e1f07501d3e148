"""A long command that is killed at any moment: the same command, given again, ends as if it had not been."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surgery.written import read_written

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
SECONDS = 600  # that a run may take to begin, on a machine that has much else to do
RUNS_SECONDS = 3  # about as long as one writes where nothing else runs
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


def start(folder, name):
    """A command in a process of its own, once it has begun to write."""
    (folder / "prompts.txt").write_text("red apple\nrocket\n")
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, COMMANDS[name]), "--out", OUT.get(name, "out")]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + SECONDS
    while len(list(folder.iterdir())) == 1 and process.poll() is None:
        assert time.monotonic() < end, "it never began"
        time.sleep(0.01)
    return process


def kill(folder, name, seconds):
    """Start a command, and kill it so many seconds after it began to write."""
    process = start(folder, name)
    time.sleep(seconds)
    process.kill()
    assert process.wait() in (0, -signal.SIGKILL)
    return process.returncode


def made_good(folder, name, surgery_command):
    """What is there of a command once it was given again, unless all was there already."""
    known = read_written(folder / "out", name)
    is_whole = (folder / OUT[name]).exists() if name in OUT else known and known.files and known.is_whole
    return contents(folder) if is_whole else finish(surgery_command, folder, name)


SLOW = ("generate", "profile")  # how they go on is seen in test_gallery.py and test_profiling.py without a process


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in COMMANDS])
def test_a_killed_run_is_made_good_by_the_next(name, undisturbed, surgery_command, tmp_path):
    seconds = random.Random(name).uniform(0, RUNS_SECONDS)
    kill(tmp_path, name, seconds)
    assert made_good(tmp_path, name, surgery_command) == undisturbed(name)


@pytest.fixture(scope="module")
def length(tmp_path_factory):
    """A function: the name of a command -> the seconds from when it begins to write until it ends, here and now."""
    found = {}

    def measure(name):
        if name not in found:
            process, begun = start(tmp_path_factory.mktemp(name), name), time.monotonic()
            assert process.wait() == 0
            found[name] = time.monotonic() - begun
        return found[name]

    return measure


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name in COMMANDS for number in range(30 if name == "evaluate" else 5)]
)
def test_a_run_that_is_killed_at_a_random_moment(name, number, undisturbed, length, surgery_command, tmp_path):
    """Of all that it takes to write; a run that was quicker, and whole, is no moment, and there is another."""
    chosen, folder = random.Random(f"{name} {number}"), tmp_path / "run"
    while True:
        folder.mkdir()
        if kill(folder, name, chosen.uniform(0, length(name))) == -signal.SIGKILL:
            break
        shutil.rmtree(folder)
    assert made_good(folder, name, surgery_command) == undisturbed(name)
