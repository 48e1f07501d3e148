"""The bundled pipeline's curves by layer beside those of the ablation study of PixArt-alpha.

Both replace one attn1, attn2 or ff at a time by the channel mean of its input. The study measured FID and CLIP score of
a model of 28 blocks; here it is the denoising error of one of 12, so that only shapes and ranks can be compared. Drawn
as the share of the way from the unedited model to noise, over relative depth; the denoising error is drawn as it is: 0
for the unedited model, 1 as far off as predicting nothing. Printed: Spearman's rank correlation over the 12 blocks,
each beside the study's curve at its depth (between two of its blocks, on the line between them), with an interval.

The evaluation is of specs/demo-sweeps/replace_sweep_each_channel_mean.yaml; by denoising error alone it is one walk:
surgery evaluate specs/demo-sweeps/replace_sweep_each_channel_mean.yaml --prompts exports/demo/prompts.txt \
    --stages error:64 --extractor none --clip none --lpips none --out out/study
"""

import argparse
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from surgery.errors import InputError
from surgery.metrics.intervals import Interval
from surgery.metrics.rank_correlation import rank_correlation
from surgery.report.themes import LIGHT

STUDY = Path(__file__).parent / "data" / "pixart_study.csv"
COMPONENTS = {"attn1": "self-attention (attn1)", "attn2": "cross-attention (attn2)", "ff": "feed-forward (ff)"}
METRICS = {"FID": "-", "CLIP": "--"}  # of the study, with their lines
OWN = "denoising error"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A value a layer, and for the bundled pipeline its interval and the number of prompts."""

    values: Values
    low: Values | None = None
    high: Values | None = None
    num: int = 0

    @property
    def depths(self) -> Values:
        """Where the layers are, from 0 for the first to 1 for the last."""
        return np.linspace(0, 1, len(self.values))

    def at(self, depths: Values) -> Values:
        """The values at other depths."""
        return np.interp(depths, self.depths, self.values)


def main() -> None:
    """Draw the figure and print the correlations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, help="the folder of the evaluation")
    parser.add_argument("--out", type=Path, default=Path("docs/beside_the_study.png"))
    options = parser.parse_args()
    own, study = read_own(options.evaluation / "rows.csv"), read_study(STUDY)
    for (metric, component), theirs in study.items():
        found = correlate(own[component], theirs)
        print(f"{component}: {OWN} and the study's {metric}: {'not known' if found is None else interval_text(found)}")
    draw(own, study).savefig(options.out, dpi=110)
    print(options.out)


def read_study(path: Path) -> dict[tuple[str, str], Curve]:
    """The study's curves by metric and component, as shares of the way from the unedited model to noise."""
    with path.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        value, baseline, noise = (float(row[name]) for name in ("value", "baseline", "noise"))
        found.setdefault((row["metric"], row["component"]), []).append((value - baseline) / (noise - baseline))
    return {key: Curve(np.array(values)) for key, values in found.items()}


def read_own(path: Path) -> dict[str, Curve]:
    """The denoising errors of the bundled pipeline by component, in the order of layers.

    Raises:
        InputError: they are not of a sweep over layers and components.
    """
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["kind"] == "variant" and row["metric"] == OWN]
    if not rows or {row.get("component") for row in rows} != set(COMPONENTS):
        raise InputError(f"{path} is not of specs/demo-sweeps/replace_sweep_each_channel_mean.yaml")
    found = {}
    for component in COMPONENTS:
        chosen = sorted((row for row in rows if row["component"] == component), key=lambda row: int(row["layer"]))
        value, low, high = (np.array([float(row[name]) for row in chosen]) for name in ("value", "low", "high"))
        found[component] = Curve(value, low, high, int(chosen[0]["N"]))
    return found


def correlate(own: Curve, theirs: Curve) -> Interval | None:
    """How alike two curves rank the layers of the first."""
    return rank_correlation(own.values, theirs.at(own.depths), rows="blocks")


def interval_text(found: Interval) -> str:
    """A correlation with its interval."""
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}; {found.method}, {found.num})"


def draw(own: Mapping[str, Curve], study: Mapping[tuple[str, str], Curve]) -> Figure:
    """A panel a component."""
    figure = Figure(figsize=(11, 4.2), layout="constrained", facecolor=LIGHT.paper)
    panels = figure.subplots(1, len(COMPONENTS), sharey=True)
    for axes, (component, name) in zip(panels, COMPONENTS.items(), strict=True):
        draw_panel(axes, own[component], {metric: study[metric, component] for metric in METRICS})
        axes.set_title(name, fontsize=10)
    panels[0].set_ylabel("share of the way from the\nunedited model (0) to noise (1)")
    num = own["ff"].num
    figure.suptitle(
        "One component at a time replaced by its input's channel mean: another model, another depth, another metric\n"
        f"bundled pipeline: 12 blocks, N = {num}, denoising error as it is (1: as far off as predicting nothing), 95% "
        "bars; PixArt-alpha: 28 blocks, digitised",
        fontsize=10,
    )
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def draw_panel(axes: Axes, own: Curve, study: Mapping[str, Curve]) -> None:
    """The curves of one component over relative depth."""
    for metric, line in METRICS.items():
        theirs = study[metric]
        axes.plot(theirs.depths, theirs.values, line, color=LIGHT.series[1], lw=1.2, label=f"PixArt-alpha, {metric}")
    assert own.low is not None and own.high is not None, "it is of the bundled pipeline"
    bars = np.stack([own.values - own.low, own.high - own.values])
    label = f"bundled pipeline, {OWN}"
    axes.errorbar(own.depths, own.values, bars, fmt="o-", ms=4, color=LIGHT.series[0], lw=1.5, label=label)
    for level in (0.0, 1.0):
        axes.axhline(level, color=LIGHT.faint, lw=0.8, zorder=0)
    axes.set_xlabel("relative depth (0 first block, 1 last)")


if __name__ == "__main__":
    main()
