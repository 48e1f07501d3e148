"""The folder of an evaluation -> one HTML page that holds all of it: no request leaves it, no script is needed."""

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from surgery.errors import InputError
from surgery.experiment.damage_map import Damage, read_damage
from surgery.experiment.metric_table import LATENCY
from surgery.report.cost_figures import CostFigure, cost_figures
from surgery.report.damage_figures import draw_damage_map
from surgery.report.draw_svg import STYLE, draw_svg
from surgery.report.evaluated import Measured, MeasuredMetric, MeasuredRow
from surgery.report.evaluation_folder import KEPT, NUMBERS
from surgery.report.inline_svg import inline_svg, theme_css
from surgery.report.metric_figures import WIDTH, cost_text, figures_of, ranked_rows
from surgery.report.metric_panels import TOLD
from surgery.report.picture_grids import Grid, read_grids
from surgery.report.ranking import Ranking, interval_text, rank
from surgery.report.sweep_forms import forms_of
from surgery.report.themes import LIGHT
from surgery.report.tidy_tables import findings_table
from surgery.report.what_matters import SHARE, LayerSet, control_of, findings_of, layer_sets
from surgery.spec.spec_name import name_of_point

NUM_PICTURED = 10  # of the best variants, and of the worst
UNSAFE = re.compile(r"[^\w.=,+-]+")  # in the name of a file
PLAIN = ("model", "seed", "batch_size", "dtype", "device", "call", "versions", "judges")


@dataclass(frozen=True)
class Drawing:
    """A figure on the page, as an `svg` element in which texts of others are escaped; and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class MetricPart:
    """The figures of one metric."""

    metric: MeasuredMetric
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class VariantPart:
    """What there is of one variant beside its numbers."""

    row: MeasuredRow
    anchor: str
    schedule: str | None
    spec_link: str | None
    spec_name: str
    point: str


@dataclass(frozen=True)
class Report:
    """All that the page shows. `missing` says what the folder should hold and does not."""

    measured: Measured
    ranked_by: MeasuredMetric | None
    title: str
    metrics: tuple[MetricPart, ...]
    times: tuple[Drawing, ...]
    sets: tuple[LayerSet, ...]
    controls: Mapping[str, str]
    costs: tuple[tuple[Drawing, CostFigure], ...]
    ranking: Ranking
    grids: tuple[tuple[str, list[Grid]], ...]
    variants: tuple[VariantPart, ...]
    csv_link: str
    missing: tuple[str, ...] = field(default=())

    @property
    def best_and_worst(self) -> list[tuple[str, str, str]]:
        """The best and the worst variant: the word, the name, the number."""
        metric = self.ranked_by
        ranked = [] if metric is None else ranked_rows(self.measured.variants, metric)
        known = [(row, row.numbers[metric.name]) for row in ranked if metric is not None and metric.name in row.numbers]
        ends = [("best", known[0]), ("worst", known[-1])] if len(known) > 1 else []
        return [(word, row.name, interval_text(number)) for word, (row, number) in ends]

    @property
    def cost(self) -> str:
        """What the variants cost."""
        return cost_text(self.measured.variants)

    @property
    def is_timed(self) -> bool:
        """Whether the latency was measured."""
        return any(metric.key == LATENCY for metric in self.measured.metrics)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the numbers were made with."""
        return {name: self.measured.recipe[name] for name in PLAIN if name in self.measured.recipe}


def make_report(measured: Measured, folder: Path, *, rank_by: str | None = None, missing: Sequence[str] = ()) -> Report:
    """Draw everything; `folder` is where `evaluation.json` and the kept pictures are.

    Raises:
        InputError: no metric is called `rank_by`.
    """
    metric = measured.metric(rank_by)
    findings = [finding for each in measured.metrics for finding in findings_of(measured, each)]
    grids, lost = _grids_of(measured, metric, folder / KEPT)
    return Report(
        measured,
        metric,
        _title_of(measured),
        tuple(_metric_part(measured, each) for each in sorted(measured.metrics, key=lambda each: each != metric)),
        tuple(_damage_drawings(folder / NUMBERS)),
        tuple(layer_sets(forms_of(measured.variants), findings)),
        {finding.metric.name: control_of(finding.metric) for finding in findings},
        () if metric is None else tuple(_cost_parts(measured, metric)),
        rank(measured, metric, findings),
        tuple(grids),
        tuple(_variant_part(row, number) for number, row in enumerate(measured.variants)),
        data_link(findings_table(measured, findings), "text/csv"),
        (*missing, *lost),
    )


def render_page(report: Report) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("surgery.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style = f"{theme_css()}\n{STYLE}"
    anchors = {part.row.name: part.anchor for part in report.variants}
    return environment.get_template("page.html").render(
        report=report, style=style, anchors=anchors, share=SHARE, controls=TOLD
    )


def data_link(text: str, kind: str) -> str:
    """A text as a link that holds it."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _title_of(measured: Measured) -> str:
    num = len(measured.variants)
    return f"{num} variant{'s' * (num != 1)} of {measured.class_name}"


def _metric_part(measured: Measured, metric: MeasuredMetric) -> MetricPart:
    found = figures_of(measured, metric, LIGHT)
    drawings = (Drawing(_inline(one.figure, one.name, f"{metric.name}. {one.caption}"), one.caption) for one in found)
    return MetricPart(metric, tuple(drawings))


def _inline(figure: Figure, name: str, label: str) -> str:
    return inline_svg(figure, name.replace("_", "-"), label)


def _damage_drawings(numbers: Path) -> list[Drawing]:
    """The map of each edit, layer by timestep; none where there is no sweep over single layers."""
    try:
        damage: Damage = read_damage(numbers)
    except InputError:
        return []
    found = []
    for number, one in enumerate(damage.maps):
        title = f"{damage.class_name}, N = {damage.num_prompts}, {one.stack}"
        figure = draw_damage_map(one, damage, LIGHT, WIDTH, title)
        caption = f"{one.what} in {one.stack}: denoising error by layer and timestep."
        found.append(Drawing(_inline(figure, f"times-{number}", caption), caption))
    return found


def _cost_parts(measured: Measured, metric: MeasuredMetric) -> list[tuple[Drawing, CostFigure]]:
    return [
        (Drawing(_inline(one.figure, one.name, f"{metric.name} against {one.cost}"), one.cost), one)
        for one in cost_figures(measured, metric, LIGHT)
    ]


def _grids_of(
    measured: Measured, metric: MeasuredMetric | None, kept: Path
) -> tuple[list[tuple[str, list[Grid]]], list[str]]:
    """The pictures of the best and the worst variants, each once, and what is missing of them."""
    ranked = measured.variants if metric is None else ranked_rows(measured.variants, metric)
    best = ranked[:NUM_PICTURED]
    worst = list(reversed(ranked[len(best) :][-NUM_PICTURED:]))
    found, lost = [], []
    for title, rows in (("The best", best), ("The worst", worst)):
        grids, missing = read_grids(measured, rows, kept)
        lost += missing
        if grids:
            found.append((title, grids))
    return found, list(dict.fromkeys(lost))


def _variant_part(row: MeasuredRow, number: int) -> VariantPart:
    schedule = None if row.plan is None else draw_svg(row.plan, title=row.name)
    stem = row.stem or "variant"
    return VariantPart(
        row,
        f"variant-{number}",
        None if schedule is None else without_style(schedule),
        None if row.spec_text is None else data_link(row.spec_text, "application/yaml"),
        UNSAFE.sub("_", " ".join([stem, *(f"{name}={value}" for name, value in row.point.items())])) + ".yaml",
        shlex.quote(name_of_point(f"{stem}.yaml", row.point.items())) if row.point else "",
    )


def without_style(svg: str) -> str:
    """A drawing without its style sheet, which the page has once."""
    before, _, rest = svg.partition("<style>")
    return before.replace(' xmlns="http://www.w3.org/2000/svg"', "") + rest.partition("</style>")[2]
