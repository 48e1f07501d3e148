"""`surgery card DIR --evaluation FILE`: what an evaluation has measured of a folder, in its model card."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgery.commands.output import JsonFlag, print_json, say
from surgery.errors import InputError

if TYPE_CHECKING:
    from surgery.report.evaluated import Measured

EvaluationOption = Annotated[
    Path,
    typer.Option(metavar="FILE|DIR", help="The evaluation.json of a finished `surgery evaluate`, or its folder."),
]


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A compiled folder, or that of any model.")],
    evaluation: EvaluationOption,
    json: JsonFlag = False,
) -> None:
    """Put what an evaluation has measured of a folder into its model card (README.md), in the place of older numbers.

    The row is that of the folder's own weights, or that of its spec where they are still what that was compiled to. All
    that stands outside the two marks around the numbers stays as it is.
    """
    from surgery.publish.card_section import update_card
    from surgery.report.measured_folder import row_of_folder, section_of_row

    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give one that `surgery compile` wrote, or that of a model")
    measured = read_evaluation(evaluation)
    row = row_of_folder(measured, folder)
    path = update_card(folder, section_of_row(measured, row))
    if json:
        print_json({"card": str(path), "row": row.name, "metrics": list(row.numbers)})
    else:
        say(f"{path}: {len(row.numbers)} metrics of {row.name}, N = {max(one.num for one in row.numbers.values())}")


def read_evaluation(path: Path) -> "Measured":
    """What was measured, by the file or the folder of an evaluation; raises InputError where it is none."""
    from surgery.report.evaluated import read_measured
    from surgery.report.evaluation_folder import NUMBERS

    return read_measured(path / NUMBERS if path.is_dir() else path)
