"""An evaluation -> the files of its folder: its numbers, their figure, and the pictures that are kept."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from surgery.files import write_whole

if TYPE_CHECKING:
    from surgery.experiment.evaluation import Evaluation

KeepImages = Literal["all", "grid", "none"]


def write_evaluation(evaluation: "Evaluation", out: Path, keep_images: KeepImages) -> list[Path]:
    """Write the numbers, their figure and the pictures that are kept; returns the files for people."""
    from surgery.experiment.kept_pictures import keep_pictures
    from surgery.report.evaluation_figure import draw_evaluation

    document, stored = out / "evaluation.json", out / "store" / "pictures"
    write_whole(document, json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False) + "\n")
    written = [document, draw_evaluation(evaluation, out / "evaluation.png")]
    if keep_images != "none":
        written.append(_write_sheet(evaluation, out / "contact_sheet.png"))
    if keep_images == "all":
        keep_pictures({row.name: row.pictures for row in evaluation.rows}, out / "pictures", stored)
        written.append(out / "pictures")
    else:
        shutil.rmtree(stored, ignore_errors=True)
    return written


def _write_sheet(evaluation: "Evaluation", path: Path, columns: int = 8) -> Path:
    """The first pictures of every row."""
    from PIL import Image

    from surgery.metrics.contact_sheet import contact_sheet
    from surgery.metrics.pictures import png_of

    pictures = [
        [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in next(row.pictures.batches(columns))]
        for row in evaluation.rows
    ]
    names = [row.name for row in evaluation.rows]
    sheet = contact_sheet(pictures, row_names=names, column_names=evaluation.recipe["prompts"][:columns])
    write_whole(path, png_of(sheet))
    return path
