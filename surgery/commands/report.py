"""`surgery report DIR --out page.html`: an evaluation as one page to share, and its figures as files for papers."""

from pathlib import Path
from typing import Annotated

import typer

from surgery.commands.output import JsonFlag, bytes_text, print_json, say

SUFFIXES = (".html", ".htm")


def run(
    evaluation: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a finished `surgery evaluate`.")],
    out: Annotated[Path, typer.Option(help="The page to write (.html); it holds all that it shows.")],
    figures: Annotated[
        Path | None, typer.Option(help="Folder for the figures too, each as PNG, SVG and PDF, for papers.")
    ] = None,
    rank_by: Annotated[
        str | None,
        typer.Option(help="The metric that variants are ranked by, as the table names it; else the denoising error."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a page and figures that are there already.")] = False,
    json: JsonFlag = False,
) -> None:
    """Put an evaluation on one page: curves, maps, ranks, costs, pictures, schedules, specs. It asks for no network."""
    from surgery.outputs import refuse_file, refuse_folder, write_file
    from surgery.report.evaluation_read import read_evaluation_folder
    from surgery.report.page import make_report, render_page
    from surgery.report.report_figures import COMMAND, write_figures

    refuse_file(out, force=force, suffixes=SUFFIXES)
    if figures is not None:
        refuse_folder(figures, COMMAND, force=force)
    measured, missing = read_evaluation_folder(evaluation)
    report = make_report(measured, evaluation, rank_by=rank_by, missing=missing)
    page = render_page(report)
    write_file(out, page, force=force)
    drawn = [] if figures is None else write_figures(measured, figures, rank_by=rank_by, force=force)
    if json:
        files = [str(path) for path in (out, *drawn)]
        print_json({"files": files, "variants": len(measured.variants), "missing": list(report.missing)})
        return
    for text in report.missing:
        say(f"missing: {text}", err=True)
    say(f"{out}: {report.title}, N = {len(measured.prompts)}, {bytes_text(len(page.encode()))}")
    if figures is not None:
        say(f"{figures}: {len(drawn)} files of figures")
