"""A folder of pictures with captions -> pairs. One of these says which caption is whose:

* `metadata.jsonl` or `metadata.csv` with `file_name` and `text` (or `caption`), as Hugging Face's imagefolder has it;
* a text file beside each picture, of its name, with one caption a line, as trainers have it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.experiment.text_files import lines_of, read_text_file, rows_of_csv
from surgery.files import is_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
TABLES = ("metadata.jsonl", "metadata.csv")
TEXT_KEYS = ("text", "caption")


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture's file and one of its captions."""

    file: Path
    caption: str


def read_captions(folder: Path) -> tuple[CaptionedPicture, ...]:
    """All pairs of a folder, in the order of its table, or of the pictures' names.

    Raises:
        InputError: the folder has no captions, or a caption has no picture, or a picture no caption.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one of pictures with captions")
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    pairs = tuple(_from_table(table) if table is not None else _from_texts(folder))
    if not pairs:
        raise InputError(f"{folder} holds no pictures with captions; write a metadata.jsonl with file_name and text")
    for pair in pairs:
        if not is_file(pair.file):
            raise InputError(f"{table} names {pair.file.name}, which is not there")
    return pairs


def _from_table(table: Path) -> Iterator[CaptionedPicture]:
    for number, row in enumerate(_rows(table), 1):
        name = row.get("file_name")
        texts = next((row[key] for key in TEXT_KEYS if row.get(key)), "")
        captions = [text.strip() for text in (texts if isinstance(texts, list) else [texts]) if isinstance(text, str)]
        if not isinstance(name, str) or not captions or not all(captions):
            raise InputError(f"{table}: entry {number} needs file_name and text")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{table}: entry {number} names {name}, which is not in its folder")
        yield from (CaptionedPicture(table.parent / name, caption) for caption in captions)


def _rows(table: Path) -> list[dict[str, Any]]:
    text = read_text_file(table, "the captions")
    with told_as(f"{table} can't be read"):
        if table.suffix == ".csv":
            return list(rows_of_csv(text))
        rows = [json.loads(line) for line in lines_of(text)]
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{table} must hold one object a line, with file_name and text")
    return rows


def _from_texts(folder: Path) -> Iterator[CaptionedPicture]:
    for picture in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        beside = picture.with_suffix(".txt")
        lines = lines_of(read_text_file(Path(beside), f"{picture} has no caption:"))
        if not lines:
            raise InputError(f"{picture} has no caption: {beside} is empty")
        yield from (CaptionedPicture(picture, line) for line in lines)
