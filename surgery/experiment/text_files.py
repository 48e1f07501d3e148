"""Text files of users -> lines, rows of a CSV: the one reader of both.

A line ends at a line feed, with or without a carriage return before it, or at a carriage return; not at what Unicode
calls a line or paragraph separator, which may stand within a prompt. Line breaks within the quotes of a CSV are kept.
"""

import csv
import io
import re
from pathlib import Path

from surgery.errors import InputError

LINE_END = re.compile(r"\r\n|\n|\r")


def read_text_file(path: Path, what: str) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; `what` is what messages call it.

    Raises:
        InputError: it can't be read, or is not in UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{what} {path} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} can't be read: {error}; write it in UTF-8") from None


def lines_of(text: str) -> list[str]:
    """The lines that hold something, without the spaces around them."""
    return [line.strip() for line in LINE_END.split(text) if line.strip()]


def rows_of_csv(text: str) -> list[dict[str, str | None]]:
    """The rows of a CSV by the names of its first line; a cell that is not there is None.

    Raises:
        csv.Error: it is none.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    return [{name: value for name, value in row.items() if isinstance(name, str)} for row in reader]
