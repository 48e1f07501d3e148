"""Tables and figures -> docs/conditionings.md: what stands between `<!-- NAME -->` and `<!-- end -->` is replaced."""

import re
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from surgery.files import write_whole
from surgery.report.plot_profile import render

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conditionings.md"
DATA = ROOT / "benchmarks" / "data" / "conditionings.json"


def fill_page(tables: Mapping[str, str], figures: Mapping[str, Figure]) -> None:
    """Write the tables into the page, and the figures beside it."""
    write_whole(PAGE, filled(PAGE.read_text(encoding="utf-8"), tables))
    for name, figure in figures.items():
        write_whole(PAGE.with_name(f"conditionings_{name}.png"), render(figure, "png"))


def filled(text: str, tables: Mapping[str, str]) -> str:
    """The text with each table in its place."""
    for name, table in tables.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = place.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
    return text
