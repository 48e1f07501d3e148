"""Regular expressions of others' files are tried in a process that can be ended, before they are used in this one.

A pattern like `(a+)+$` takes time that doubles with each character. Python's `re` has no limit of time, and a library
that has one reads some patterns in another way than those who use the file, who match with `re`.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from surgery.errors import InputError

SECONDS = 2  # of processor time, for one pattern and all names of a model: a thousand times what a sane one takes
SCRIPT = Path(__file__).with_name("pattern_matcher.py")


def refuse_slow_patterns(patterns: Iterable[str], names: Iterable[str], *, seconds: float | None = None) -> None:
    """Raise InputError where a pattern takes too long to be matched against the names."""
    wanted = list(dict.fromkeys(patterns))
    if not wanted:
        return
    seconds = SECONDS if seconds is None else seconds
    given = {"patterns": wanted, "names": list(names), "seconds": seconds}
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT)], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pattern = wanted[int((done.stdout.split() or ["0"])[-1])]
        raise InputError(
            f'the pattern "{pattern}" takes over {seconds} s to be matched against the names of the model; '
            "write it without repetitions within repetitions"
        )
