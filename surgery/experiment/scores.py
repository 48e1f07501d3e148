"""What there is of a row -> its numbers, each with an interval: against real pictures, the text, and the baseline."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from surgery.errors import InputError
from surgery.experiment import metric_table
from surgery.experiment.jury import Array, Judges
from surgery.experiment.metric_table import MetricKind, Sight, titles_text
from surgery.experiment.sights import Observed, View, has_sight, views_of
from surgery.metrics.feature_sets import Origin
from surgery.metrics.intervals import Interval


@dataclass(frozen=True)
class Metric:
    """What a number is called (`short` in tables), whether more of it is better, and what it was made with.

    `kind` is what is measured and `by` the network that it is measured by, where there is one: together they are its
    `key`. Names may be shared. `is_paired` says that it compares each picture with the baseline's of the same prompt
    and seed.
    """

    kind: str
    name: str
    short: str
    higher_is_better: bool
    made_with: str
    by: Origin = field(default_factory=Origin)
    is_paired: bool = False
    flag: str = ""

    @property
    def key(self) -> str:
        """Tells it from every other metric: `frechet by dinov2-384 <digest of its weights>, <how it resizes>`."""
        by = self.by
        return f"{self.kind} by {by.extractor} {by.digest}, {by.resize}" if by.is_known else self.kind


@dataclass(frozen=True)
class Score:
    """A metric of a row. `difference` is to the baseline, prompt by prompt; `values` one number a prompt, or none.

    Of a row that is averaged, `points` are the numbers that it is the mean of.
    """

    metric: Metric
    interval: Interval
    difference: Interval | None = None
    values: Array | None = field(default=None, repr=False)
    points: Array | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **self.interval.to_json(),
            "key": self.metric.key,
            "higher_is_better": self.metric.higher_is_better,
            "made_with": self.metric.made_with,
            "paired_with_the_baseline": self.metric.is_paired,
            **({"flag": self.metric.flag} if self.metric.flag else {}),
            **({"difference_to_baseline": self.difference.to_json()} if self.difference else {}),
        }


def score_row(row: Observed, sights: Collection[Sight] = frozenset(Sight)) -> list[Score]:
    """All numbers of a row, in the order of the table of metrics; of those of one sight, judge by judge."""
    return [
        score
        for sight, metrics in groupby(metric_table.METRICS, key=lambda metric: metric.sight)
        if sight in sights
        for score in _scores_of_sight(views_of(sight, row), list(metrics), len(row.prompts))
    ]


def _scores_of_sight(views: Iterator[View], metrics: list[MetricKind], num: int) -> Iterator[Score]:
    for view in views:
        for metric in metrics:
            if num >= metric.min_pictures and metric.needs <= view.gives:
                found = metric.score(*view.seen)
                yield Score(judged_by(metric, view, num), found.interval, found.difference, found.values)


def judged_by(metric: MetricKind, view: View, num: int) -> Metric:
    """A metric as one judge measures it of so many pictures."""
    flag = f"N = {num} < {metric.reliable_from}: {metric.doubt}"
    kind, name, short = (text.format_map(view.words) for text in (metric.kind, metric.name, metric.head))
    return Metric(
        kind,
        name,
        short,
        metric.higher_is_better,
        metric.made_with or view.made_with,
        view.by,
        metric.is_paired,
        flag if num < metric.reliable_from else "",
    )


def notes_on_number(num: int, judges: Judges) -> list[str]:
    """What so few prompts do not allow to be measured; of what is paired, other metrics are left."""
    lacking: dict[int, list[MetricKind]] = {}
    for metric in metric_table.METRICS:
        if num < metric.min_pictures and not metric.is_paired and has_sight(metric.sight, judges):
            lacking.setdefault(metric.min_pictures, []).append(metric)
    return [f"no {titles_text(found)}: they need at least {least} prompts" for least, found in lacking.items()]


def check_reference(num: int) -> None:
    """Raise InputError where so few real pictures do not allow what is measured against their features."""
    needy = [metric for metric in metric_table.METRICS if num < metric.min_real]
    if needy:
        least = max(metric.min_real for metric in needy)
        names = titles_text([metric for metric in needy if metric.min_real == least])
        raise InputError(f"the reference has {num} pictures; {names} need {least} or more")
