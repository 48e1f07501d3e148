"""Rows of cells -> lines of plain text, in columns that are as wide as they need, or as the terminal lets them be.

Plain text and not rich's tables: what is printed is piped, compared and pasted into pages, `[0:12]` is no markup here,
and a number is never folded. A column gives way only where the caller says so, and then between words; a word that is
too long is broken as well, but never within a number, which could be read for another.
"""

import re
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import zip_longest

GAP = "  "
ELLIPSIS = "…"
NARROWEST = 8  # characters that a column keeps
NUMBER = re.compile(r"[^A-Za-z/\s]*\d(?:[^A-Za-z/\s]|(?<=[\d)])[ex](?=[-+\d]))*")  # with its signs: 1.5+-0.2, (4|5)x3
ATOM = re.compile(rf"{NUMBER.pattern}|\S")

Fit = Callable[[str, int], list[str]]  # a line of a cell and a width -> lines


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None where it is a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    rows: Sequence[Sequence[str]],
    *,
    indent: str = "",
    right: Collection[int] = (),
    wrap: Collection[int] = (),
    cut: Collection[int] = (),
) -> str:
    """`lay_out` for standard output: no wider than the terminal, where it is one, as far as columns give way."""
    return lay_out(rows, indent=indent, right=right, wrap=wrap, cut=cut, width=terminal_width())


def lay_out(
    rows: Sequence[Sequence[str]],
    *,
    indent: str = "",
    right: Collection[int] = (),
    wrap: Collection[int] = (),
    cut: Collection[int] = (),
    width: int | None = None,
) -> str:
    """Rows of equally many cells as text.

    Columns in `right` are aligned to the right. Where the lines would be longer than `width` characters, cells of the
    columns in `wrap` go on below, and those in `cut` end in an ellipsis; without `width` nothing gives way.
    """
    if not rows:
        return ""
    fits = {**dict.fromkeys(wrap, wrap_text), **dict.fromkeys(cut, cut_text)}
    columns = list(zip(*rows, strict=True))
    widths = [max(len(line) for cell in cells for line in cell.split("\n")) for cells in columns]
    if width is not None:
        least = {number: _narrowest(columns[number], whole=fit is wrap_text) for number, fit in fits.items()}
        widths = narrow(widths, least, width - len(indent) - len(GAP) * (len(widths) - 1))
    return "\n".join(
        (indent + GAP.join(cells)).rstrip() for row in rows for cells in _lines_of_row(row, widths, right, fits)
    )


def narrow(widths: Sequence[int], least: dict[int, int], total: int) -> list[int]:
    """Widths whose sum is `total`, or as near as columns come that give way down to `least`; the widest gives first."""
    found = list(widths)
    while sum(found) > total:
        giving = [number for number, width in least.items() if found[number] > width]
        if not giving:
            break
        found[max(giving, key=found.__getitem__)] -= 1
    return found


def wrap_text(text: str, width: int) -> list[str]:
    """Lines of whole words; a longer word is broken, but for the numbers in it."""
    if len(text) <= width:
        return [text]
    lines: list[str] = []
    for word in [piece for whole in text.split() for piece in _pieces(whole, width)]:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def cut_text(text: str, width: int) -> list[str]:
    """As much of the text as there is room for, and an ellipsis; a number is there whole or not."""
    if len(text) <= width:
        return [text]
    end = width - len(ELLIPSIS)
    across = [number.start() for number in NUMBER.finditer(text) if number.start() < end < number.end()]
    return [text[: min([end, *across])].rstrip() + ELLIPSIS]


def _pieces(word: str, width: int) -> list[str]:
    found = [""]
    for atom in ATOM.findall(word):
        if found[-1] and len(found[-1] + atom) > width:
            found.append("")
        found[-1] += atom
    return found


def _narrowest(cells: Sequence[str], *, whole: bool) -> int:
    """The least width of a column that gives way: that of its longest number, where they are kept whole."""
    return max([NARROWEST, *(len(number) for cell in cells for number in NUMBER.findall(cell) if whole)])


def _lines_of_row(
    row: Sequence[str], widths: Sequence[int], right: Collection[int], fits: Mapping[int, Fit]
) -> list[list[str]]:
    """The lines of a row, each cell padded to its column; a cell that has ended is blank."""
    cells = [_lines_of_cell(cell, widths[number], fits.get(number)) for number, cell in enumerate(row)]
    return [
        [_pad(text, widths[number], to_right=number in right) for number, text in enumerate(texts)]
        for texts in zip_longest(*cells, fillvalue="")
    ]


def _pad(text: str, width: int, *, to_right: bool) -> str:
    return text.rjust(width) if to_right else text.ljust(width)


def _lines_of_cell(cell: str, width: int, fit: Fit | None) -> list[str]:
    lines = cell.split("\n")
    return lines if fit is None else [line for text in lines for line in fit(text, width)]
