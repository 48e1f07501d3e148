"""Prompts from files: a text file, a CSV, or captions in COCO's format, whose pictures then are the reference."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.experiment.text_files import lines_of, read_text_file, rows_of_csv
from surgery.files import is_file

COLUMNS = ("prompt", "caption", "text")


@dataclass(frozen=True)
class PromptSet:
    """Prompts in their order; `pictures` are the files (in `folder`) of the pictures that they describe, or none."""

    prompts: tuple[str, ...]
    pictures: tuple[Path, ...] = ()
    folder: Path = Path()


def read_prompt_file(
    path: Path, *, pictures: Path | None = None, sample: int | None = None, seed: int = 0
) -> PromptSet:
    """The prompts of a file: of `.csv` the column prompt, caption or text, of `.json` COCO's captions, else the lines.

    `pictures` is the folder of COCO's pictures. `sample` draws so many (prompt, picture) pairs without repetition, by
    Python's `random.Random(seed).sample`.

    Raises:
        InputError: the file can't be read, holds no prompt or fewer than are to be drawn, or a picture is missing.
    """
    text = read_text_file(path, "the prompts")
    if path.suffix.lower() == ".json":
        pairs = _from_coco(path, text, pictures)
    elif pictures is not None:
        raise InputError(f"{path} names no pictures; --pictures goes with captions in COCO's format (.json)")
    elif path.suffix.lower() == ".csv":
        pairs = [(prompt, None) for prompt in _from_csv(path, text)]
    else:
        pairs = [(line, None) for line in lines_of(text)]
    if not pairs:
        raise InputError(f"{path} holds no prompt; write one a line")
    if sample is not None:
        if sample > len(pairs):
            raise InputError(f"{path} holds {len(pairs)} prompts, and {sample} are to be drawn")
        pairs = random.Random(seed).sample(pairs, sample)
    return PromptSet(
        tuple(prompt for prompt, _ in pairs), tuple(file for _, file in pairs if file is not None), pictures or Path()
    )


def _from_csv(path: Path, text: str) -> list[str]:
    with told_as(f"the prompts {path} can't be read"):
        rows = rows_of_csv(text)
    column = next((name for name in COLUMNS if rows and name in rows[0]), None)
    if column is None:
        raise InputError(f"{path} has no column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}")
    cells = [(row.get(column) or "").strip() for row in rows]
    return [cell for cell in cells if cell]


def _from_coco(path: Path, text: str, pictures: Path | None) -> list[tuple[str, Path | None]]:
    """Every annotation with its picture, in the file's order."""
    with told_as(
        f"{path} is no captions file in COCO's format (images with id and file_name, annotations with image_id and "
        "caption)"
    ):
        document: Any = json.loads(text)
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        captions = [(entry["caption"], entry["image_id"]) for entry in document["annotations"]]
        hash(tuple(identifier for _, identifier in captions))
    for number, (caption, _) in enumerate(captions, 1):
        if not isinstance(caption, str):
            raise InputError(f"{path}: the caption of annotation {number} is {json.dumps(caption)}; write a text")
    told = [(caption.strip(), identifier) for caption, identifier in captions]
    return [(caption, _picture(path, names, identifier, pictures)) for caption, identifier in told if caption]


def _picture(path: Path, names: Mapping[Any, str], identifier: Any, pictures: Path | None) -> Path | None:
    if identifier not in names:
        raise InputError(f"{path}: a caption is of picture {identifier}, which the file does not name")
    if pictures is None:
        return None
    name = names[identifier]
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{path} names the picture {name}, which is not in {pictures}")
    if not is_file(pictures / name):
        raise InputError(f"{path} names the picture {name}, which is not in {pictures}")
    return pictures / name
