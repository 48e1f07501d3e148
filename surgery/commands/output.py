"""How commands write: for people or one JSON document on standard output; progress goes to standard error."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from surgery.finite import to_finite
from surgery.safe_text import show_safely

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs instead of text.")]

QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress; faults and notes are still told.")]


def say(text: str, *, err: bool = False, end: str = "\n") -> None:
    """A text for people, on standard output or standard error; everything that commands say of their own goes here."""
    print(show_safely(text), end=end, file=sys.stderr if err else sys.stdout, flush=True)


@contextlib.contextmanager
def told_when_stopped(what: str) -> Iterator[None]:
    """Say at Ctrl-C what is kept of a run, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted: {what}", err=True)
        raise


def print_json(document: Any) -> None:
    """One JSON document on standard output; in JSON's own escapes where that takes no UTF-8."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(to_finite(document), indent=2, ensure_ascii=not is_unicode, allow_nan=False), flush=True)


def count_text(number: int) -> str:
    """`12,345,678` -> `12.3 M`; small numbers as they are."""
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.3g} {unit}"
    return str(number)


def bytes_text(number: int) -> str:
    """`13,000,000` -> `13 MB` (decimal units)."""
    return f"{count_text(number)}B" if number >= 10**4 else f"{number} bytes"


def share_text(part: float, whole: float) -> str:
    """`part` as a percentage of `whole`."""
    return f"{100 * part / whole:.1f}%" if whole else "0.0%"
