"""Tables as text: nothing is lost, nothing is wider than the terminal where columns give way, no number is broken."""

import os
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.text_table import ELLIPSIS, NARROWEST, cut_text, lay_out, table, wrap_text

NUMBERS = st.sampled_from(["7", "0:12", "1,234,567", "0.25+-0.01=", "-1.5", "x3"])
WORDS = st.text("abcdefgh.-=", min_size=1, max_size=30) | NUMBERS
CELLS = st.lists(WORDS, max_size=8).map(" ".join)
COLUMNS = 3
ROWS = st.lists(st.lists(CELLS, min_size=COLUMNS, max_size=COLUMNS), min_size=1, max_size=4)
SETS = st.sets(st.integers(0, COLUMNS - 1))


def numbers(text):
    return re.findall(r"[^a-z\s…]*\d[^a-z\s…]*", text)


@given(ROWS, SETS, SETS, SETS)
def test_a_table_that_is_not_on_a_terminal_loses_nothing_and_breaks_no_line(rows, right, wrap, cut):
    lines = lay_out(rows, right=right, wrap=wrap, cut=cut).split("\n")
    assert [line.split() for line in lines] == [" ".join(row).split() for row in rows]
    assert lay_out(rows, right=right, wrap=wrap, cut=cut, width=10_000).split("\n") == lines


@given(ROWS, st.integers(1, 120))
def test_columns_that_wrap_lose_nothing_and_break_no_number(rows, width):
    """A row is found again by reading each of its columns downwards; only words without numbers are broken."""
    for row in rows:
        printed = lay_out([row], wrap=range(COLUMNS), width=width)
        assert sorted("".join(printed.split())) == sorted("".join("".join(row).split()))
        assert sorted(numbers(printed)) == sorted(numbers(" ".join(row)))


@given(ROWS, st.integers(1, 120))
def test_columns_that_are_cut_stay_on_one_line_with_whole_numbers(rows, width):
    lines = lay_out(rows, cut=range(COLUMNS), width=width).split("\n")
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert set(numbers(line)) <= set(numbers(" ".join(row)))


@given(ROWS, SETS, SETS, st.integers(1, 120))
def test_no_line_is_longer_than_the_terminal_where_a_column_may_still_give_way(rows, wrap, cut, width):
    lines = lay_out(rows, wrap=wrap, cut=cut, width=width).split("\n")
    least = 2 * (COLUMNS - 1)
    for number, cells in enumerate(zip(*rows, strict=True)):
        whole = max(map(len, cells))
        words = [len(word) for cell in cells for word in numbers(cell)] if number in wrap and number not in cut else []
        least += min(whole, max([NARROWEST, *words])) if number in wrap | cut else whole
    assert max(map(len, lines)) <= max(width, least)


@given(st.lists(WORDS, min_size=1, max_size=8).map(" ".join), st.integers(NARROWEST, 40))
def test_a_text_is_cut_only_where_it_is_too_long(text, width):
    (found,) = cut_text(text, width)
    assert found == text if len(text) <= width else found.endswith(ELLIPSIS) and len(found) <= width
    assert text.startswith(found.removesuffix(ELLIPSIS))


def test_columns_are_aligned():
    rows = [["a", "10", "x"], ["long", "5", ""]]
    assert lay_out(rows, indent="  ", right={1}) == "  a     10  x\n  long   5"
    assert lay_out([]) == ""


def test_lines_of_a_cell_stay_in_its_column():
    assert lay_out([["a", "one\ntwo"], ["b", "three"]]) == "a  one\n   two\nb  three"


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("runs 0:12 of all", 8, ["runs", "0:12 of", "all"]),
        ("transformer_blocks", 8, ["transfor", "mer_bloc", "ks"]),
        ("123,456,789,012", 8, ["123,456,789,012"]),
        ("specs/2026-11-28.yaml", 8, ["specs/", "2026-11-28.", "yaml"]),
    ],
)
def test_a_text_wraps_between_words_and_never_within_a_number(text, width, lines):
    assert wrap_text(text, width) == lines


class Terminal:
    """Standard output that says that it is a terminal, or not."""

    def __init__(self, *, is_terminal):
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


@pytest.mark.parametrize(("is_terminal", "longest"), [(True, 30), (False, 54)])
def test_a_table_is_as_wide_as_the_terminal_and_unbroken_in_a_pipe(monkeypatch, is_terminal, longest):
    monkeypatch.setattr(sys, "stdout", Terminal(is_terminal=is_terminal))
    monkeypatch.setattr("shutil.get_terminal_size", lambda **_: os.terminal_size((30, 24)))
    assert max(map(len, table([["name", "words " * 8]], wrap={1}).splitlines())) <= longest
    assert (table([["name", "words " * 8]], wrap={1}).count("\n") > 0) is is_terminal
