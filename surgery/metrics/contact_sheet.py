"""Pictures in rows and columns on one sheet, each row and column with its name."""

from collections.abc import Mapping, Sequence
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

CELL_PX = 128
MARGIN_PX = 10
LABEL_PX = 15
NAME_CELLS = 2  # as many cells as the name of a row may be wide before it goes on below
REPEAT = 12  # rows, or columns, after which the names stand again: no picture is farther from its own
BACKGROUND = "white"
INK = "#222222"

Columns = Literal["prompts", "variants"]


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    *,
    row_names: Sequence[str],
    column_names: Sequence[str],
    cell_px: int = CELL_PX,
) -> Image.Image:
    """A sheet with `rows[r][c]` under `column_names[c]` and beside `row_names[r]`; small pictures are enlarged.

    On long sheets the names stand again after every `REPEAT` rows or columns.
    """
    font = ImageFont.load_default(size=LABEL_PX)
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    beside = [_wrap(probe, name, font, NAME_CELLS * cell_px) for name in row_names]
    left = max((_width(probe, line, font) for lines in beside for line in lines), default=0) + 2 * MARGIN_PX
    wrapped = [_wrap(probe, name, font, cell_px) for name in column_names]
    line_px = LABEL_PX + 4
    top = max((len(lines) for lines in wrapped), default=0) * line_px + 2 * MARGIN_PX
    step = cell_px + MARGIN_PX
    xs, ys = _places(len(column_names), left, step), _places(len(rows), top, step)
    sheet = Image.new("RGB", (max(left, *xs, 0) + step * bool(xs), max(top, *ys, 0) + step * bool(ys)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for y in ys[::REPEAT]:
        for x, lines in zip(xs, wrapped, strict=True):
            for number, line in enumerate(lines):
                above = y - MARGIN_PX - line_px * (len(lines) - number)
                draw.text((x + cell_px / 2, above), line, fill=INK, font=font, anchor="ma")
    for lines, pictures, y in zip(beside, rows, ys, strict=True):
        for x in xs[::REPEAT]:
            for number, line in enumerate(lines):
                middle = y + cell_px / 2 + line_px * (number - (len(lines) - 1) / 2)
                draw.text((x - left + MARGIN_PX, middle), line, fill=INK, font=font, anchor="lm")
        for x, picture in zip(xs, pictures, strict=False):
            sheet.paste(_fit(picture, cell_px), (x, y))
    return sheet


def sheet_of_variants(
    pictures: Mapping[str, Sequence[Image.Image]], prompts: Sequence[str], columns: Columns
) -> Image.Image:
    """The pictures of each variant, a row a variant, or where the `columns` are variants, a row a prompt."""
    if columns == "prompts":
        return contact_sheet(list(pictures.values()), row_names=list(pictures), column_names=prompts)
    turned = list(zip(*pictures.values(), strict=True))
    return contact_sheet(turned, row_names=prompts, column_names=list(pictures))


def _places(count: int, names_px: int, step: int) -> list[int]:
    """Where each of so many rows or columns begins, with room for names before every `REPEAT` of them."""
    return [names_px * (number // REPEAT + 1) + step * number for number in range(count)]


def _fit(picture: Image.Image, cell_px: int) -> Image.Image:
    """The picture within a square cell: enlarged with sharp pixels, reduced smoothly."""
    scale = cell_px / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    cell = Image.new("RGB", (cell_px, cell_px), BACKGROUND)
    cell.paste(picture.convert("RGB").resize(size, method), ((cell_px - size[0]) // 2, (cell_px - size[1]) // 2))
    return cell


def _width(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return round(draw.textlength(text, font=font))


def _wrap(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """The text in lines of at most `width` pixels, four at most."""
    lines: list[str] = []
    for word in (piece for whole in text.split() for piece in _pieces(draw, whole, font, width)):
        if lines and _width(draw, f"{lines[-1]} {word}", font) <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines if len(lines) <= 4 else [*lines[:3], "..."]


def _pieces(
    draw: ImageDraw.ImageDraw, word: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """A word in as many parts as it takes for each to be no wider."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and _width(draw, pieces[-1] + letter, font) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
