"""What was measured of every model -> what each conditioning lost, with intervals over training seeds; who lost least.

A family of cuts is a sweep (skips, components, painters). What a model lost by it is the mean over its variants. The
loss of a conditioning is the mean over training seeds, with Student's interval. Two conditionings are compared seed by
seed: models of one seed have the same pictures held out, and see the same batches.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surgery.metrics.intervals import Interval, difference_interval, mean_interval

BASELINE, VARIANT = "baseline", "variant"
Facts = Mapping[str, Any]  # of a model, as `conditionings.json` has them


def lost_error(_baseline: Facts, row: Facts) -> float:
    """How far the predictions are from the uncut model's, relative to these."""
    return float(row["error"]["value"])


def lost_right(baseline: Facts, row: Facts) -> float:
    """By how many percentage points fewer pictures show the digit that was asked for."""
    return 100 * float(baseline["right"] - row["right"])


def lost_frechet(baseline: Facts, row: Facts) -> float:
    """By how much the pictures are further from real digits, in the judge's features."""
    return float(row["frechet"]["value"] - baseline["frechet"]["value"])


MEASURES: Mapping[str, tuple[str, Callable[[Facts, Facts], float]]] = {
    "error": ("denoising error", lost_error),
    "right": ("digits lost, points", lost_right),
    "frechet": ("Frechet distance gained", lost_frechet),
}


@dataclass(frozen=True)
class Verdict:
    """The conditionings, least hurt first, with their losses; `behind` is what each loses more than the first."""

    losses: Mapping[str, Interval]
    behind: Mapping[str, Interval]

    @property
    def tied(self) -> tuple[str, ...]:
        """Those that are not told apart from the first: zero is in the interval of the difference."""
        return tuple(name for name, gap in self.behind.items() if gap.low is None or gap.low <= 0)


def baseline_of(model: Facts) -> Facts:
    """The row of the uncut model."""
    return next(row for row in model["rows"] if row["kind"] == BASELINE)


def variants_of(model: Facts, cut: str) -> list[Facts]:
    """The rows of a family of cuts."""
    return [row for row in model["rows"] if row["kind"] == VARIANT and row["cut"] == cut]


def loss_of(model: Facts, cut: str, measure: str) -> float:
    """What a model lost, on the mean over a family of cuts."""
    baseline, rows = baseline_of(model), variants_of(model, cut)
    return sum(MEASURES[measure][1](baseline, row) for row in rows) / len(rows)


def of_config(models: Sequence[Facts], config: str) -> list[Facts]:
    """The models of a config, in the order of their seeds."""
    return sorted((model for model in models if model["config"] == config), key=lambda model: int(model["seed"]))


def measured(models: Sequence[Facts], configs: Sequence[str], measure: str) -> list[Facts]:
    """The models of those seeds for which every config was measured so."""
    known = [model for model in models if model["config"] in configs and measure in baseline_of(model)]
    counts = Counter(model["seed"] for model in known)
    return [model for model in known if counts[model["seed"]] == len(configs)]


def losses_of(models: Sequence[Facts], config: str, cut: str, measure: str) -> list[float]:
    """What the models of a config lost, seed by seed."""
    return [loss_of(model, cut, measure) for model in of_config(models, config)]


def judge_cut(models: Sequence[Facts], configs: Sequence[str], cut: str, measure: str) -> Verdict:
    """Who lost least by a family of cuts, and by how much the others lost more."""
    models = measured(models, configs, measure)
    values = {config: losses_of(models, config, cut, measure) for config in configs}
    ranked = sorted(configs, key=lambda config: sum(values[config]))
    first = values[ranked[0]]
    return Verdict(
        {config: mean_interval(values[config]) for config in ranked},
        {config: difference_interval(values[config], first) for config in ranked[1:]},
    )


def compare(models: Sequence[Facts], config: str, other: str, value_of: Callable[[Facts], float]) -> Interval:
    """By how much a number of the models of `config` is above that of `other`, seed by seed."""
    one, two = ([value_of(model) for model in of_config(models, name)] for name in (config, other))
    return difference_interval(one, two)
