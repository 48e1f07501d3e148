"""A search -> its figure: damage against the budget's unit, of all sets that were measured, and the front of them."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from surgery.experiment.search.budget import UNIT_TEXTS
from surgery.report.metric_figures import WIDTH
from surgery.report.panels import SMALL, new_figure, style_axes
from surgery.report.themes import Theme

if TYPE_CHECKING:
    from surgery.experiment.search.conclusion import Search

HEIGHT = 3.6  # inches


def draw_search(search: "Search", theme: Theme) -> Figure:
    """The sets as dots, the front on the half that was chosen by, and the same sets on the half that was held out."""
    choosing, held_out = search.halves
    unit = UNIT_TEXTS[search.budget.kind]
    title = f"{search.request.objective} against {unit}"
    note = f"N = {len(choosing)} prompts to choose by, {len(held_out)} held out (95% intervals)"
    figure = new_figure(WIDTH, HEIGHT, theme, title, "")
    axes = figure.subplots()
    style_axes(axes, theme, title=note, x=f"{unit}, % of the model's", y="damage, less is better")
    sets = [(100 * amount / search.full, damage) for _, amount, damage in search.measured if np.isfinite(damage)]
    axes.plot(*_columns(sets), "o", color=theme.series[0], markersize=3, alpha=0.4, label="sets that were measured")
    places = [100 * point.amount / search.full for point in search.front]
    chosen = [point.chosen_interval.value for point in search.front]
    axes.plot(places, chosen, "D-", color=theme.series[1], markersize=4.5, linewidth=1.0, label="the front, as chosen")
    unseen = [point.held_out_interval for point in search.front]
    halves = [0.0 if each.low is None else each.value - each.low for each in unseen]
    values = [each.value for each in unseen]
    color = theme.series[2]
    axes.errorbar(
        places, values, yerr=halves, fmt="s--", color=color, markersize=4, linewidth=0.9, capsize=2, label="held out"
    )
    axes.axvline(100 * search.limit / search.full, color=theme.ink, linewidth=0.8, linestyle=":", label="the budget")
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.grid(color=theme.faint, linewidth=0.4)
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False, labelcolor=theme.ink)
    return figure


def _columns(places: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [place for place, _ in places], [damage for _, damage in places]
