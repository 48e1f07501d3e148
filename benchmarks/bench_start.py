"""What the commands that need no model cost to start. Aim: at most 2x the `--help` of a bare two-command Typer app.

Processor time of whole processes, in turn within one run; the check of the known model is one of the bundled pipeline.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BARE_APP = '''
import typer

app = typer.Typer()


@app.command()
def first(name: str) -> None:
    """The first."""


@app.command()
def second(name: str) -> None:
    """The second."""


app()
'''
COMMANDS = ("--help", "schema", "check specs/demo/skip.yaml", "check specs/demo", "inspect demo")
ROUNDS = 15


def processor_seconds(command: list[str]) -> float:
    """User and system time of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the cost of each command as a ratio to that of the bare app's help."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "bare.py"
        script.write_text(BARE_APP)
        bare = [sys.executable, str(script), "--help"]
        ours = {text: [sys.executable, "cli.py", *text.split()] for text in COMMANDS}
        for command in (bare, *ours.values()):
            processor_seconds(command)  # byte code and file caches
        ratios: dict[str, list[float]] = {text: [] for text in COMMANDS}
        baseline = []
        for _ in range(ROUNDS):
            reference = processor_seconds(bare)
            baseline.append(reference)
            for text, command in ours.items():
                ratios[text].append(processor_seconds(command) / reference)
    print(f"bare Typer app --help: {statistics.median(baseline):.2f} s of processor time")
    for text, found in ratios.items():
        print(f"surgery {text}: {statistics.median(found):.2f} x")


if __name__ == "__main__":
    main()
