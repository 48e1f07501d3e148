"""Kept pictures of an evaluation -> small ones for a page: baseline, variant, difference; fixed and worst prompts."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.experiment.controls import BASELINE
from surgery.experiment.folder_names import folder_names
from surgery.report.evaluated import Measured, MeasuredRow

THUMBNAIL_PX = 192
NUM_FIXED, NUM_WORST = 4, 4
MOST_LOOKED_AT = 64  # prompts among which the worst are sought
GAIN = 2  # of differences, so that small ones are seen
QUALITY = 80

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Triple:
    """One prompt: pictures as `data:` links. `is_worst`: it is here because the variant changed it the most."""

    prompt: str
    baseline: str
    variant: str
    difference: str
    is_worst: bool


@dataclass(frozen=True)
class Grid:
    """The pictures of a variant."""

    row: MeasuredRow
    triples: tuple[Triple, ...]


def read_grids(measured: Measured, rows: Sequence[MeasuredRow], kept: Path) -> tuple[list[Grid], list[str]]:
    """The grids of some rows, of the folder where pictures are kept; and what is missing there, in words."""
    if not kept.is_dir():
        return [], []
    folders = folder_names([row.name for row in measured.rows])
    num = min(len(measured.prompts), MOST_LOOKED_AT)
    grids, missing = [], []
    try:
        baseline = _read_all(kept / folders[BASELINE], num)
    except InputError as error:
        return [], [str(error)]
    for row in rows:
        try:
            grids.append(_grid_of(row, measured.prompts, baseline, _read_all(kept / folders[row.name], num)))
        except InputError as error:
            missing.append(str(error))
    return grids, missing


def _grid_of(row: MeasuredRow, prompts: Sequence[str], baseline: Sequence[Pixels], own: Sequence[Pixels]) -> Grid:
    """The first prompts, and of the others those whose pictures are the farthest from the baseline's, by RMS."""
    if {one.shape for one in baseline} != {one.shape for one in own}:
        raise InputError(f"the pictures of {row.name} and of the baseline have different sizes")
    apart = [float(np.sqrt(((a.astype(float) - b) ** 2).mean())) for a, b in zip(own, baseline, strict=True)]
    rest = range(min(NUM_FIXED, len(own)), len(own))
    worst = sorted(rest, key=lambda number: -apart[number])[:NUM_WORST]
    chosen = [*range(len(own) - len(rest)), *worst]
    triples = (
        Triple(
            prompts[number],
            thumbnail(baseline[number]),
            thumbnail(own[number]),
            thumbnail(_difference(own[number], baseline[number])),
            number in worst,
        )
        for number in chosen
    )
    return Grid(row, tuple(triples))


def _difference(one: Pixels, other: Pixels) -> Pixels:
    """How far apart each value is, from black; `GAIN` times as far."""
    apart = np.abs(one.astype(np.int16) - other)
    return np.minimum(255, GAIN * apart).astype(np.uint8)


def thumbnail(pixels: Pixels) -> str:
    """A picture (H, W, 3) as a WebP of at most `THUMBNAIL_PX`, as a link that holds it."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    picture.save(target, format="WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(target.getvalue()).decode()}"


def _read_all(folder: Path, num: int) -> list[Pixels]:
    """The first so many pictures of a row; raises InputError where one is missing or damaged."""
    files = sorted(folder.glob("*.png"))[:num] if folder.is_dir() else []
    if len(files) < num:
        raise InputError(f"{folder} holds {len(files)} of the first {num} pictures")
    return [_read(file) for file in files]


def _read(file: Path) -> Pixels:
    with told_as(f"the picture {file} can't be read"), Image.open(file, formats=["PNG"]) as picture:
        return np.asarray(picture.convert("RGB"))
