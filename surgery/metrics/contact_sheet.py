"""Pictures in rows and columns on one sheet, each row and column with its name."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

CELL_PX = 128
MARGIN_PX = 10
LABEL_PX = 15
BACKGROUND = "white"
INK = "#222222"


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    *,
    row_names: Sequence[str],
    column_names: Sequence[str],
    cell_px: int = CELL_PX,
) -> Image.Image:
    """A sheet with `rows[r][c]` under `column_names[c]` and beside `row_names[r]`; small pictures are enlarged."""
    font = ImageFont.load_default(size=LABEL_PX)
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = max((_width(probe, name, font) for name in row_names), default=0) + 2 * MARGIN_PX
    wrapped = [_wrap(probe, name, font, cell_px) for name in column_names]
    line_px = LABEL_PX + 4
    top = max((len(lines) for lines in wrapped), default=0) * line_px + 2 * MARGIN_PX
    step = cell_px + MARGIN_PX
    size = (left + step * len(column_names), top + step * len(rows))
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(wrapped):
        for number, line in enumerate(lines):
            above = top - MARGIN_PX - line_px * (len(lines) - number)
            draw.text((left + step * column + cell_px / 2, above), line, fill=INK, font=font, anchor="ma")
    for number, (name, pictures) in enumerate(zip(row_names, rows, strict=True)):
        y = top + step * number
        draw.text((MARGIN_PX, y + cell_px / 2), name, fill=INK, font=font, anchor="lm")
        for column, picture in enumerate(pictures):
            sheet.paste(_fit(picture, cell_px), (left + step * column, y))
    return sheet


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
    for word in text.split():
        if lines and _width(draw, f"{lines[-1]} {word}", font) <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines if len(lines) <= 4 else [*lines[:3], "..."]
