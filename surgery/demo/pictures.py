"""The training data of the bundled pipeline: Noto Color Emoji drawn by Pillow, captioned with their names.

Needs the `train` extra (the PyPI package `emoji`) and the font (Debian: `fonts-noto-color-emoji`, licence OFL-1.1).
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from surgery.errors import InputError

FONT_PATHS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf"),
)
BITMAP_SIZE_PX = 109  # the only size that the font's bitmaps have
CANVAS_PX = 136  # the width of one bitmap
PICTURE_PX = 64

# Signs with lettering, clocks, plain geometry and people in many poses: they differ from their neighbours by a few
# pixels only.
LEFT_OUT_WORDS = frozenset(
    {
        "button",
        "sign",
        "arrow",
        "arrows",
        "clock",
        "thirty",
        "square",
        "circled",
        "mark",
        "symbol",
        "symbols",
        "keycap",
        "japanese",
        "medium",
        "small",
        "large",
        "track",
        "index",
        "person",
        "people",
        "no",
        "input",
        "copyright",
        "registered",
        "information",
        "aries",
        "taurus",
        "gemini",
        "cancer",
        "leo",
        "virgo",
        "libra",
        "scorpio",
        "sagittarius",
        "capricorn",
        "aquarius",
        "pisces",
        "ophiuchus",
    }
)


@dataclass(frozen=True)
class Emoji:
    """One training example: the character and its caption in lower-case words."""

    character: str
    caption: str


def caption_from_name(name: str) -> str:
    """`:T-Rex:` -> `t rex`: lower case, words separated by one space, no punctuation."""
    return " ".join(re.findall(r"[a-z0-9]+", name.lower().replace("’", "").replace("'", "")))


def list_emoji() -> list[Emoji]:
    """All emoji of one code point that have a name and no lettering, in the order of their code points."""
    import emoji as names

    found: dict[str, Emoji] = {}
    for character, entry in sorted(names.EMOJI_DATA.items()):
        if entry["status"] != names.STATUS["fully_qualified"] or len(character.replace("\ufe0f", "")) != 1:
            continue
        caption = caption_from_name(entry["en"].replace("_", " ").replace("o’clock", "clock"))
        if LEFT_OUT_WORDS.isdisjoint(caption.split()):
            found.setdefault(caption, Emoji(character, caption))
    return list(found.values())


def find_font() -> Path:
    """The path of Noto Color Emoji; raises InputError that says how to install it."""
    for path in FONT_PATHS:
        if path.exists():
            return path
    raise InputError(
        f"the font NotoColorEmoji.ttf is in none of {', '.join(str(path.parent) for path in FONT_PATHS)}; "
        "install it (Debian and Ubuntu: apt install fonts-noto-color-emoji)"
    )


def draw_emoji(character: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """A 64 x 64 RGB picture on white, or None where the font has no such glyph."""
    bare = character.replace("\ufe0f", "")
    if font.getmask(bare).getbbox() is None:
        return None
    canvas = Image.new("RGB", (CANVAS_PX, CANVAS_PX), "white")
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = draw.textbbox((0, 0), bare, font=font, embedded_color=True)
    corner = ((CANVAS_PX - right - left) // 2, (CANVAS_PX - bottom - top) // 2)
    draw.text(corner, bare, font=font, embedded_color=True)
    return canvas.resize((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)


def load_pictures() -> tuple[list[Emoji], NDArray[np.uint8]]:
    """The captions and their pictures, (N, 64, 64, 3) uint8; glyphs that the font lacks or repeats are left out."""
    font = ImageFont.truetype(str(find_font()), BITMAP_SIZE_PX)
    kept: list[Emoji] = []
    pixels: dict[bytes, NDArray[np.uint8]] = {}
    for emoji in list_emoji():
        picture = draw_emoji(emoji.character, font)
        if picture is None:
            continue
        array = np.asarray(picture, dtype=np.uint8)
        if array.tobytes() not in pixels:
            pixels[array.tobytes()] = array
            kept.append(emoji)
    return kept, np.stack(list(pixels.values()))
