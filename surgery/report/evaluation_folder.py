"""An evaluation -> the files of its folder: its numbers, their figure, and the pictures that are kept."""

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from surgery.finite import to_finite
from surgery.outputs import added_files, own_folder
from surgery.written import read_written

if TYPE_CHECKING:
    from surgery.experiment.evaluation import Evaluation, EvaluationRequest
    from surgery.metrics.contact_sheet import Columns

COMMAND = "evaluate"
KeepImages = Literal["all", "grid", "none"]
NUMBERS, FIGURE, SHEET, KEPT = "evaluation.json", "evaluation.png", "contact_sheet.png", "pictures"
ROWS, PROMPTS = "rows.csv", "prompts.csv"


def evaluate_into(
    request: "EvaluationRequest",
    keep_images: KeepImages,
    *,
    force: bool,
    columns: "Columns" = "prompts",
) -> tuple["Evaluation", list[Path]]:
    """Run an evaluation and write what came of it into its folder; the files for people.

    The evaluation has pictures where all are kept.

    Raises:
        InputError: the folder is not empty and not one of an evaluation; it holds the results of another request, and
            there is no `force`; another run is writing it; or as `run_evaluation`.
    """
    from surgery.experiment.evaluation import key_of_request, run_evaluation

    key = key_of_request(request)
    with own_folder(request.out, COMMAND, key, force=force):
        evaluation = run_evaluation(request)
        written = write_evaluation(evaluation, request.out, keep_images, key, columns=columns)
    return (evaluation if keep_images == "all" else evaluation.without_pictures()), written


def write_evaluation(
    evaluation: "Evaluation", out: Path, keep_images: KeepImages, key: str = "", *, columns: "Columns" = "prompts"
) -> list[Path]:
    """Write the numbers, their figure and the pictures that are kept; returns the files for people.

    The results of another request, of another `key`, give way. Pictures that are not kept leave the store.
    """
    from surgery.experiment.kept_pictures import keep_pictures
    from surgery.report.evaluation_figure import draw_evaluation
    from surgery.report.tidy_tables import prompts_table, rows_table

    names = [
        NUMBERS,
        ROWS,
        PROMPTS,
        FIGURE,
        *([] if keep_images == "none" else [SHEET]),
        *([KEPT] if keep_images == "all" else []),
    ]
    before = read_written(out, COMMAND)
    is_same = before is not None and before.request == key
    with added_files(out, COMMAND, force=True, request=key, beside_others=is_same) as folder:
        document = json.dumps(to_finite(evaluation.to_json()), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / NUMBERS).write_text(document + "\n", encoding="utf-8")
        (folder / ROWS).write_text(rows_table(evaluation), encoding="utf-8", newline="")
        (folder / PROMPTS).write_text(prompts_table(evaluation), encoding="utf-8", newline="")
        draw_evaluation(evaluation, folder / FIGURE)
        if SHEET in names:
            _write_sheet(evaluation, folder / SHEET, columns)
        if KEPT in names:
            keep_pictures(evaluation.pictures, folder / KEPT)
    if KEPT not in names:
        _empty_store(evaluation)
    return [out / name for name in names]


def _empty_store(evaluation: "Evaluation") -> None:
    """Remove the stored pictures of an evaluation; those of others, and what is not the store's, stay."""
    from surgery.experiment.picture_store import StoredPictures

    folders = {file.parent for pictures in evaluation.pictures.values() for file in pictures.files}
    for folder in folders:
        StoredPictures(folder).remove()
    with contextlib.suppress(OSError):
        for store in {folder.parent for folder in folders}:
            store.rmdir()


def _write_sheet(evaluation: "Evaluation", path: Path, columns: "Columns", num: int = 8) -> None:
    """The first pictures of every row."""
    from PIL import Image

    from surgery.metrics.contact_sheet import sheet_of_variants
    from surgery.metrics.pictures import png_of

    pictures = {
        name: [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in next(found.batches(num))]
        for name, found in evaluation.pictures.items()
    }
    path.write_bytes(png_of(sheet_of_variants(pictures, evaluation.recipe["prompts"][:num], columns)))
