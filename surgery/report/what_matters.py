"""Which variants are worse than chance allows: differences beyond a control, false discoveries held down.

A number of pictures against real ones or the text is compared with the baseline's, prompt by prompt where it has a
value a prompt. A number that is itself a comparison with the baseline is compared with the baseline's of other seeds:
two good pictures of a prompt differ by so much.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from surgery.experiment.controls import BASELINE, RESEEDED
from surgery.metrics.intervals import Interval
from surgery.metrics.significance import adjust
from surgery.metrics.welch import independent_difference, p_value
from surgery.report.evaluated import Measured, MeasuredMetric, MeasuredRow
from surgery.report.sweep_forms import CurveSet, Form

SHARE = 0.05  # of false discoveries


@dataclass(frozen=True)
class Finding:
    """The difference of a variant to its control, and the share of false discoveries at which it would be one."""

    row: MeasuredRow
    metric: MeasuredMetric
    difference: Interval
    adjusted: float

    @property
    def is_shown(self) -> bool:
        """Whether it is more than chance."""
        return self.adjusted <= SHARE

    @property
    def is_worse(self) -> bool:
        """Whether the variant is worse than its control, more than by chance."""
        return self.is_shown and (self.difference.value < 0) == self.metric.higher_is_better

    @property
    def is_better(self) -> bool:
        """Whether it is better, more than by chance."""
        return self.is_shown and not self.is_worse


def control_of(metric: MeasuredMetric) -> str:
    """The row that variants are compared with."""
    return RESEEDED if metric.is_paired else BASELINE


def findings_of(measured: Measured, metric: MeasuredMetric) -> list[Finding]:
    """All variants of which a metric allows a test; none where there is no control or no interval."""
    found = []
    for row in measured.variants:
        difference = _difference(measured, row, metric)
        chance = None if difference is None else p_value(difference)
        if difference is not None and chance is not None:
            found.append((row, difference, chance))
    adjusted = adjust([chance for *_, chance in found])
    return [
        Finding(row, metric, difference, share) for (row, difference, _), share in zip(found, adjusted, strict=True)
    ]


def _difference(measured: Measured, row: MeasuredRow, metric: MeasuredMetric) -> Interval | None:
    if not metric.is_paired and metric.name in row.differences:
        return row.differences[metric.name]
    own, control = row.numbers.get(metric.name), measured.number(control_of(metric), metric)
    return None if own is None or control is None else independent_difference(own, control)


@dataclass(frozen=True)
class LayerSet:
    """The places along a curve at which a variant is worse, better, or neither is shown; of `num` that were tested."""

    metric: MeasuredMetric
    axis: str
    curve: str
    worse: str
    better: str
    num_worse: int
    num: int


def layer_sets(forms: Sequence[Form], findings: Sequence[Finding]) -> Iterator[LayerSet]:
    """For each metric and curve the layers that matter."""
    curves = [(form.axis, curve) for form in forms if isinstance(form, CurveSet) for curve in form.curves]
    for metric in dict.fromkeys(finding.metric for finding in findings):
        own = {finding.row.name: finding for finding in findings if finding.metric == metric}
        for axis, curve in curves:
            tested = [(place, own[row.name]) for place, row in curve.points if row.name in own]
            worse = [place for place, finding in tested if finding.is_worse]
            better = [place for place, finding in tested if finding.is_better]
            if tested:
                yield LayerSet(metric, axis, curve.label, runs_text(worse), runs_text(better), len(worse), len(tested))


def runs_text(places: Iterable[float]) -> str:
    """Numbers as selectors have them: `0:3, 11`; half open."""
    found = sorted(places)
    if not all(float(place).is_integer() for place in found):
        return ", ".join(f"{place:g}" for place in found)
    runs = []
    for _, run in itertools.groupby(enumerate(found), key=lambda item: item[1] - item[0]):
        numbers = [int(place) for _, place in run]
        runs.append(f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}:{numbers[-1] + 1}")
    return ", ".join(runs)
