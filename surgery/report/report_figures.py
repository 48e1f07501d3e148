"""The figures of a report as files for papers: a file a figure, in vector or pixel formats."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from surgery.outputs import added_files
from surgery.report.cost_figures import cost_figures
from surgery.report.evaluated import Measured
from surgery.report.metric_figures import figures_of
from surgery.report.plot_profile import Format, render
from surgery.report.themes import THEMES, Theme, ThemeName

COMMAND = "report"


def write_figures(
    measured: Measured,
    out: Path,
    *,
    rank_by: str | None = None,
    formats: tuple[Format, ...] = ("png", "svg", "pdf"),
    theme: ThemeName = "light",
    force: bool = False,
) -> list[Path]:
    """Write all figures of metrics and costs into a folder; what was written.

    Raises:
        InputError: no metric is called `rank_by`; the folder can't be written to, or holds something else.
    """
    written = []
    metric = measured.metric(rank_by)
    with added_files(out, COMMAND, force=force) as folder, matplotlib.rc_context({"pdf.fonttype": 42}):
        figures = [*_metric_figures(measured, THEMES[theme])]
        if metric is not None:
            figures += [(one.name, one.figure) for one in cost_figures(measured, metric, THEMES[theme])]
        for name, figure in figures:
            for file_format in formats:
                (folder / f"{name}.{file_format}").write_bytes(render(figure, file_format))
                written.append(out / f"{name}.{file_format}")
                figure.set_layout_engine("none")  # it is laid out, and is to be so in all formats
    return written


def _metric_figures(measured: Measured, theme: Theme) -> Iterator[tuple[str, Figure]]:
    for metric in measured.metrics:
        yield from ((one.name, one.figure) for one in figures_of(measured, metric, theme))
