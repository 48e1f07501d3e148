"""The folder of an evaluation -> what was measured, and what is not there that should be."""

from pathlib import Path

from surgery.errors import InputError
from surgery.report.evaluated import Measured, read_measured
from surgery.report.evaluation_folder import COMMAND, KEPT, NUMBERS
from surgery.written import Written, read_written

STORED = "store/pictures"


def read_evaluation_folder(folder: Path) -> tuple[Measured, list[str]]:
    """The numbers of a finished evaluation, and in words what was changed or is gone since it was written.

    Raises:
        InputError: it is no folder of an evaluation, one that has not ended, or its numbers are damaged.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise InputError(
            f"{folder} {what}; give the folder that `surgery evaluate SPEC... --prompts FILE --out DIR` wrote"
        )
    written = read_written(folder, COMMAND)
    if not (folder / NUMBERS).is_file():
        raise InputError(_without_numbers(folder, written))
    try:
        measured = read_measured(folder / NUMBERS)
    except InputError as error:
        if written is None:
            raise
        raise InputError(f"{error}; the command that wrote it writes it again, with --force") from None
    return measured, [] if written is None else _changed(folder, written)


def _without_numbers(folder: Path, written: Written | None) -> str:
    """What a folder is that has no numbers: of a run that has not ended, or of none."""
    if written is None:
        return (
            f"{folder} has no {NUMBERS}; give the folder that `surgery evaluate SPEC... --prompts FILE --out DIR` wrote"
        )
    if NUMBERS in written.files:
        return f"{folder} has lost its {NUMBERS}; the command that wrote it writes it again"
    num = sum(1 for _ in (folder / STORED).glob("*/*.png"))
    drawn = f"{num} pictures are drawn" if num else "nothing is drawn"
    return f"{folder} has no {NUMBERS} yet: {drawn}, nothing is scored; the same `surgery evaluate` goes on from there"


def _changed(folder: Path, written: Written) -> list[str]:
    """What the evaluation wrote and is gone or no longer the same: the numbers, and how many pictures."""
    found = []
    if not written.is_whole:
        found.append("the evaluation was stopped while it put its files in place; some may be of the run before")
    if NUMBERS in written.files and not written.owns(folder, NUMBERS):
        found.append(f"{NUMBERS} was changed after it was written")
    pictures = [name for name in written.files if name.startswith(f"{KEPT}/")]
    gone = [name for name in pictures if not (folder / name).is_file()]
    if gone:
        found.append(f"{len(gone)} of {len(pictures)} kept pictures, {gone[0]} first")
    return found
