"""Every picture stands in its cell, under its column's name and beside its row's."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from surgery.metrics.contact_sheet import CELL_PX, LABEL_PX, MARGIN_PX, contact_sheet, sheet_of_variants

WHITE = (255, 255, 255)
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200)]


def plain(colour, size=(16, 16)):
    return Image.new("RGB", size, colour)


def sheet_of(num_rows, num_columns, **options):
    colours = itertools.cycle(COLOURS)
    rows = [[plain(next(colours)) for _ in range(num_columns)] for _ in range(num_rows)]
    names = {"row_names": [f"row {n}" for n in range(num_rows)], "column_names": [f"c{n}" for n in range(num_columns)]}
    return rows, contact_sheet(rows, **names, **options)


def corner_of_cells(sheet, num_rows, num_columns, cell_px):
    step = cell_px + MARGIN_PX
    return sheet.width - step * num_columns, sheet.height - step * num_rows


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([32, 48, CELL_PX]))
def test_cells_are_where_they_belong_and_hold_their_picture(num_rows, num_columns, cell_px):
    rows, sheet = sheet_of(num_rows, num_columns, cell_px=cell_px)
    left, top = corner_of_cells(sheet, num_rows, num_columns, cell_px)
    step = cell_px + MARGIN_PX
    for row, column in itertools.product(range(num_rows), range(num_columns)):
        x, y = left + step * column, top + step * row
        cell = np.asarray(sheet.crop((x, y, x + cell_px, y + cell_px)))
        assert (cell == rows[row][column].getpixel((0, 0))).all()
        assert sheet.getpixel((x + cell_px, y)) == sheet.getpixel((x, y + cell_px)) == WHITE


def test_one_more_row_or_column_adds_one_cell_and_its_margin():
    widths = [sheet_of(1, n)[1].width for n in (1, 2, 3)]
    heights = [sheet_of(n, 1)[1].height for n in (1, 2, 3)]
    assert np.diff(widths).tolist() == np.diff(heights).tolist() == [CELL_PX + MARGIN_PX] * 2


def test_labels_are_drawn_beside_rows_and_above_columns():
    _, sheet = sheet_of(2, 2)
    left, top = corner_of_cells(sheet, 2, 2, CELL_PX)
    dark = np.asarray(sheet.convert("L")) < 128
    for number in range(2):
        start = (CELL_PX + MARGIN_PX) * number
        assert dark[top + start : top + start + CELL_PX, :left].any()
        assert dark[:top, left + start : left + start + CELL_PX].any()
    assert not dark[:top, :left].any()


def test_long_names_make_room():
    short = contact_sheet([[plain(COLOURS[0])]], row_names=["a"], column_names=["b"])
    long_row = contact_sheet([[plain(COLOURS[0])]], row_names=["a much longer name"], column_names=["b"])
    long_column = contact_sheet([[plain(COLOURS[0])]], row_names=["a"], column_names=["smiling face with sunglasses"])
    endless = contact_sheet([[plain(COLOURS[0])]], row_names=["a"], column_names=["sunglasses " * 40])
    assert long_row.width > short.width and long_row.height == short.height
    assert long_column.height > short.height and long_column.width == short.width
    assert endless.height == short.height + 3 * (LABEL_PX + 4)
    one_word = contact_sheet([[plain(COLOURS[0])]], row_names=["a"], column_names=["replace_sweep_each" * 2])
    dark = np.asarray(one_word.convert("L")) < 128
    assert one_word.height == short.height + 2 * (LABEL_PX + 4) and not dark[:, -MARGIN_PX // 2 :].any()


@pytest.mark.parametrize("size", [(8, 16), (16, 8), (300, 100), (1, 500)])
def test_pictures_keep_their_proportions_in_the_middle_of_the_cell(size):
    sheet = contact_sheet([[plain(COLOURS[0], size)]], row_names=["a"], column_names=["b"])
    left, top = corner_of_cells(sheet, 1, 1, CELL_PX)
    cell = np.asarray(sheet.crop((left, top, left + CELL_PX, top + CELL_PX)))
    rows, columns = np.nonzero((cell != 255).any(axis=2))
    covered = np.array([columns.max() - columns.min() + 1, rows.max() - rows.min() + 1])
    assert covered.max() == CELL_PX
    assert np.allclose(covered, np.maximum(1, np.array(size) * CELL_PX / max(size)), atol=1)
    assert abs(columns.min() + columns.max() - CELL_PX + 1) <= 1
    assert abs(rows.min() + rows.max() - CELL_PX + 1) <= 1


def test_small_pictures_are_enlarged_with_sharp_pixels():
    picture = plain(COLOURS[0], (2, 1))
    picture.putpixel((1, 0), COLOURS[1])
    sheet = contact_sheet([[picture]], row_names=["a"], column_names=["b"])
    left, top = corner_of_cells(sheet, 1, 1, CELL_PX)
    cell = sheet.crop((left, top, left + CELL_PX, top + CELL_PX))
    assert {colour for _, colour in cell.getcolors()} == {WHITE, COLOURS[0], COLOURS[1]}


def test_names_and_rows_must_be_as_many():
    with pytest.raises(ValueError, match="is shorter than"):
        contact_sheet([[plain(COLOURS[0])]], row_names=["a", "b"], column_names=["c"])


def test_no_column_has_a_name_and_no_row():
    assert contact_sheet([], row_names=[], column_names=[]).size == (2 * MARGIN_PX, 2 * MARGIN_PX)


@pytest.mark.parametrize("columns", ["prompts", "variants"])
def test_on_long_sheets_the_names_stand_again_and_every_picture_is_there_once(columns):
    """15 prompts by 2 variants: after 12 rows or columns there is room for the names once more, and they are in it."""
    shades = {name: [plain((16 * n, 10, blue)) for n in range(15)] for name, blue in (("a", 0), ("b", 200))}
    prompts = [f"p{n}" for n in range(15)]
    sheet = sheet_of_variants(shades, prompts, columns)
    along, across = (sheet, sheet.transpose(Image.Transpose.TRANSPOSE))[:: 1 if columns == "variants" else -1]
    names = along.height - 15 * (CELL_PX + MARGIN_PX)
    assert along.height > along.width == across.height
    pixels = np.asarray(along)
    found = [
        (y, x)
        for y in range(along.height - 1)
        for x in (along.width - 2 * (CELL_PX + MARGIN_PX) + 1, along.width - MARGIN_PX - 2)
        if tuple(pixels[y, x]) in {(16 * n, 10, blue) for n in range(15) for blue in (0, 200)}
    ]
    assert len(found) == 2 * 15 * CELL_PX
    top = names // 2
    again = top + 12 * (CELL_PX + MARGIN_PX)
    dark = np.asarray(along.convert("L")) < 128
    left = along.width - 2 * (CELL_PX + MARGIN_PX)
    for begin in (0, again):
        assert dark[begin : begin + top - MARGIN_PX // 2, left:].any(), "names of the columns"
    for number in (0, 14):
        begin = (number // 12 + 1) * top + number * (CELL_PX + MARGIN_PX)
        assert dark[begin : begin + CELL_PX, :left].any(), "names of the rows"
