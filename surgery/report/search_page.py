"""A search -> one HTML page that holds all of it: no request leaves it, no script is needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from surgery.experiment.search.budget import UNIT_TEXTS, amount_text
from surgery.experiment.search.chosen_spec import CHOSEN, interval_text, left_text, spec_names, spent_text
from surgery.report.draw_svg import STYLE, draw_svg
from surgery.report.inline_svg import inline_svg, theme_css
from surgery.report.page import data_link, without_style
from surgery.report.search_figure import draw_search
from surgery.report.themes import LIGHT

if TYPE_CHECKING:
    from surgery.experiment.search.conclusion import Search
    from surgery.experiment.search.front import FrontPoint


@dataclass(frozen=True)
class SpecPart:
    """A spec of the front on the page: its file, its place, its numbers as texts, its drawing and its text."""

    name: str
    anchor: str
    point: "FrontPoint"
    amount: str
    chosen: str
    held_out: str
    gap: str
    schedule: str
    text: str
    link: str

    @property
    def is_chosen(self) -> bool:
        """Whether it is the best within the budget."""
        return self.name == CHOSEN


def render_search(search: "Search", specs: Mapping[str, str]) -> str:
    """The page as HTML; `specs` are the texts of the front's specs by their files."""
    environment = Environment(
        loader=PackageLoader("surgery.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    figure = inline_svg(draw_search(search, LIGHT), "front", "Damage against what is left, and the front")
    return environment.get_template("search.html").render(
        search=search,
        figure=figure,
        parts=_parts(search, specs),
        chosen=left_text(search, search.chosen.amount),
        unit=UNIT_TEXTS[search.budget.kind],
        spent=spent_text(search),
        numbers=[(text, amount_text(amount), f"{damage:.4f}") for text, amount, damage in search.measured],
        style=f"{theme_css()}\n{STYLE}",
    )


def _parts(search: "Search", specs: Mapping[str, str]) -> list[SpecPart]:
    points = spec_names(search)
    order = {id(point): number for number, point in enumerate(search.front)}
    found = []
    for name in sorted(specs, key=lambda each: order[id(points[each])]):
        point, text = points[name], specs[name]
        found.append(
            SpecPart(
                name,
                name.partition(".")[0],
                point,
                amount_text(point.amount),
                interval_text(point.chosen_interval),
                interval_text(point.held_out_interval),
                interval_text(point.gap),
                without_style(draw_svg(point.planned.plan, point.planned.anatomy, title=name)),
                text,
                data_link(text, "application/yaml"),
            )
        )
    return found
