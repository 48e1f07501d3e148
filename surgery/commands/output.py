"""How commands write: for people or one JSON document on standard output; progress goes to standard error."""

import json
from typing import Annotated, Any

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs instead of text.")]

QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress; faults and notes are still told.")]


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


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
