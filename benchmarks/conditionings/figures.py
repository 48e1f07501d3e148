"""`conditionings.json` -> the figures of docs/conditionings.md: losses by block and by family of cuts; gates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from answer import MEASURES, Facts, baseline_of, judge_cut, losses_of, measured, of_config, variants_of
from matplotlib.figure import Figure
from models import FOUR
from tables import CUTS

from surgery.report.gate_figure import draw_gates
from surgery.report.panels import SMALL, new_figure, style_axes
from surgery.report.themes import LIGHT, Theme

COLORS = dict(zip(FOUR, LIGHT.series, strict=False))
OFFSET = 0.18  # between the conditionings of a family


def all_figures(found: Mapping[str, Any]) -> dict[str, Figure]:
    """Every figure by the end of its file's name."""
    models = found["models"]
    return {"lost": draw_lost(models), "skips": draw_skips(models), "gates": draw_gate_map(models)}


def draw_lost(models: Sequence[Facts], theme: Theme = LIGHT) -> Figure:
    """A panel a measure: the loss by family of cuts, a dot a seed, and the interval of their mean."""
    note = "small dots: models of one training seed; bars: 95% intervals of their mean (Student's t)"
    figure = new_figure(12, 4, theme, "What each conditioning loses by surgery", note)
    for axes, (measure, (title, _)) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        style_axes(axes, theme, title=title)
        axes.set_xticks(range(len(CUTS)), list(CUTS.values()), rotation=14)
        shown = measured(models, FOUR, measure)
        if not shown:
            continue
        for place, cut in enumerate(CUTS):
            losses = judge_cut(models, FOUR, cut, measure).losses
            for number, config in enumerate(FOUR):
                x, interval = place + (number - 1.5) * OFFSET, losses[config]
                values = losses_of(shown, config, cut, measure)
                axes.plot([x] * len(values), values, ".", color=COLORS[config], markersize=4, alpha=0.5)
                if interval.low is not None:
                    axes.plot([x] * 2, [interval.low, interval.high], color=COLORS[config], linewidth=1.2)
                axes.plot([x], [interval.value], "o", color=COLORS[config], label=config if not place else "")
        axes.axhline(0, color=theme.faint, linewidth=0.8)
        _hold(axes, [losses_of(shown, config, cut, measure) for config in FOUR for cut in CUTS])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=SMALL, frameon=False)
    return figure


def draw_skips(models: Sequence[Facts], theme: Theme = LIGHT) -> Figure:
    """A panel a measure: what is lost without each block, a faint line a seed, a bold one their mean."""
    figure = new_figure(11, 3.6, theme, "What is lost without each block", "faint: training seeds; bold: their mean")
    for axes, (measure, (title, value_of)) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        style_axes(axes, theme, title=title, x="block that is left out")
        if not measured(models, FOUR, measure):
            continue
        for config in FOUR:
            curves = np.array(
                [
                    [value_of(baseline_of(model), row) for row in variants_of(model, "skips")]
                    for model in of_config(measured(models, FOUR, measure), config)
                ]
            )
            axes.set_xticks(range(curves.shape[1]))
            axes.plot(curves.T, color=COLORS[config], linewidth=0.8, alpha=0.35)
            axes.plot(curves.mean(0), "o-", color=COLORS[config], markersize=3.5, label=config)
        axes.axhline(0, color=theme.faint, linewidth=0.8)
    figure.axes[0].legend(fontsize=SMALL, frameon=False)
    return figure


def draw_gate_map(models: Sequence[Facts]) -> Figure:
    """The gates of freq_gate, seed 0, by block and time."""
    return draw_gates(np.array(of_config(models, "freq_gate")[0]["gates"]["low"]))


def _hold(axes: Any, values: Sequence[Sequence[float]]) -> None:
    """Limits by the dots: intervals of three seeds may reach far beyond."""
    low, high = min(map(min, values)), max(map(max, values))
    room = 0.35 * (high - low)
    axes.set_ylim(min(low - room, 0 - 0.02 * (high - low)), high + room)
