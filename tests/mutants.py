"""Does the suite see mistakes? Each of `mutations.py` is made in a copy of the tree, and the tests are run there.

A mutant is killed where a test fails. One whose tests pass, or are not through in time, survives: it shows what no test
looks at, or none soon enough. This reports, and so exits with 0; what can't be measured is an error.
"""

import argparse
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[1]
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "out", "build", "dist", "__pycache__", ".*_cache", ".hypothesis")
CPU_SECONDS = 30  # for the tests of one mutant: the same on a busy machine
SECONDS = 180  # of the clock, where a test waits for something
PASSED, FAILED, INTERRUPTED = 0, 1, 2  # pytest's exit statuses
OUT_OF_TIME = -signal.SIGXCPU


@dataclass(frozen=True)
class Outcome:
    """What pytest said in its time: `status` OUT_OF_TIME where it was not through; `failed` the first test that did."""

    status: int
    failed: str
    seconds: float

    @property
    def is_killed(self) -> bool:
        """Whether a test failed, or could not even be read."""
        return self.status in (FAILED, INTERRUPTED) or bool(self.failed)

    def describe(self) -> str:
        """`killed by tests/...`, `survived`, or `survived: ...`."""
        if self.is_killed:
            return f"killed by {self.failed or 'an error of collection'}"
        return "survived" if self.status == PASSED else "survived: no test failed in time"


def mutate(text: str, mutation: Mutation) -> str:
    """The text of a file with the mistake in it; raises ValueError unless there is exactly one place for it."""
    found = text.count(mutation.old)
    if found != 1:
        raise ValueError(f"{mutation.file}: {mutation.old!r} stands there {found} times, not once; mend mutations.py")
    return text.replace(mutation.old, mutation.new)


def run_tests(tree: Path, tests: str, seconds: int) -> Outcome:
    """The tests of a copied tree, up to the first that fails."""
    limited = ["sh", "-c", f'ulimit -S -t {seconds}; exec "$@"', "sh"]
    command = [
        *limited,
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not slow and not browser",
        "-p",
        "no:cacheprovider",
        tests,
    ]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        status = OUT_OF_TIME
    if status not in (PASSED, FAILED, INTERRUPTED, OUT_OF_TIME):
        raise RuntimeError(f"pytest ended with {status} on {tests}:\n{output[-3000:]}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    dots = re.search(r"^[.sx]*[FE]", output, re.MULTILINE)  # seen, though there was no time for the summary
    name = failed[1] if failed else "a test that there was no time to name" if dots and status == OUT_OF_TIME else ""
    return Outcome(status, name, time.monotonic() - started)


def make_mutant(tree: Path, mutation: Mutation, seconds: int) -> Outcome:
    """Make one mistake in the copied tree, run its tests, and take it back."""
    path = tree / "surgery" / mutation.file
    text = path.read_text()
    cached = Path(importlib.util.cache_from_source(path))
    try:
        path.write_text(mutate(text, mutation))
        cached.unlink(missing_ok=True)  # two texts of one length within a second look the same to Python
        outcome = run_tests(tree, f"tests/{mutation.first}", seconds)  # alone: that is soon read
        return outcome if outcome.is_killed else run_tests(tree, f"tests/{mutation.room}", seconds)
    finally:
        path.write_text(text)
        cached.unlink(missing_ok=True)


def refuse_red(tree: Path, rooms: Sequence[str], seconds: int) -> None:
    """Tests that fail without any mistake would kill every mutant."""
    for room in rooms:
        outcome = run_tests(tree, f"tests/{room}", seconds)
        if outcome.is_killed:
            raise RuntimeError(f"the tests of {room} fail as they are: {outcome.failed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", help="only the mistakes of these packages, like `spec plan`")
    parser.add_argument("--seconds", type=int, default=CPU_SECONDS, help="of CPU, for the tests of a mistake")
    options = parser.parse_args()
    rooms = options.rooms
    chosen = [mutation for mutation in MUTATIONS if not rooms or mutation.room in rooms]
    for mutation in chosen:
        mutate((ROOT / "surgery" / mutation.file).read_text(), mutation)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_BEHIND)
        refuse_red(tree, list(dict.fromkeys(mutation.room for mutation in chosen)), options.seconds)
        killed = 0
        for mutation in chosen:
            outcome = make_mutant(tree, mutation, options.seconds)
            killed += outcome.is_killed
            print(f"{mutation.file}: {mutation.old!r} -> {mutation.new!r}", flush=True)
            print(f"    {outcome.describe()} ({outcome.seconds:.0f} s)", flush=True)
        print(f"{killed} of {len(chosen)} killed, {len(chosen) - killed} survived")


if __name__ == "__main__":
    main()
