"""Lines and cells of users' files: what stands in them is what is read."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.errors import InputError
from surgery.experiment.text_files import lines_of, read_text_file, rows_of_csv

SEPARATORS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"  # of str.splitlines, and of nobody's prompts


@pytest.mark.parametrize("inside", SEPARATORS)
def test_a_line_ends_at_a_line_break_only(inside):
    assert lines_of(f"a cat{inside}on a mat\r\nred apple\rblue\n\n") == [f"a cat{inside}on a mat", "red apple", "blue"]


CELLS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00\r"), min_size=1)


@given(st.lists(CELLS, min_size=1, max_size=4))
def test_a_csv_holds_what_was_written_into_it(cells):
    """Line breaks and separators within quotes too."""
    text = "prompt\n" + "".join('"{}"\n'.format(cell.replace('"', '""')) for cell in cells)
    assert [row["prompt"] for row in rows_of_csv(text)] == cells


def test_a_csv_with_an_open_quote_is_none():
    with pytest.raises(csv.Error, match="unexpected end of data"):
        rows_of_csv('prompt\n"red apple\n')


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "caf\u00e9".encode("latin-1")])
def test_other_encodings_are_told(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"the prompts .*a\.txt can't be read: .*; write it in UTF-8"):
        read_text_file(tmp_path / "a.txt", "the prompts")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("red apple".encode("utf-8-sig"))
    assert read_text_file(tmp_path / "a.txt", "the prompts") == "red apple"
