"""A function of a test module in a process of its own, which may be killed: autograd does not live through a fork."""

import json
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
CODE = """
import json, runpy, sys
file, function, arguments = sys.argv[1:]
runpy.run_path(file)[function](*json.loads(arguments))
"""


def status_of(file, function, *arguments):
    """How a process ends (negative for a signal) in which the function is called; its arguments are plain data."""
    command = [sys.executable, "-c", f"import sys\nsys.path[:0] = {[str(TESTS.parent), str(TESTS)]!r}\n{CODE}"]
    return subprocess.run([*command, file, function, json.dumps(arguments)], timeout=300, check=False).returncode
