"""The metrics of a table -> its columns: each under a head and a name that no other column has."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from surgery.experiment.scores import Metric

DETAILS: tuple[Callable[[Metric], str], ...] = (  # behind a text, the first that no other metric has
    lambda metric: "",  # noqa: ARG005  (the text alone)
    lambda metric: metric.by.extractor,
    lambda metric: f"{metric.by.extractor} {metric.by.digest[:8]}",
    lambda metric: metric.key,
)


@dataclass(frozen=True)
class Column:
    """A metric as a table shows it: `head` is short, `name` says it in full."""

    metric: Metric
    head: str
    name: str

    @property
    def key(self) -> str:
        """By which the score of a row is found."""
        return self.metric.key


def columns_of(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    """A column for each key, in the order in which they come first."""
    known: dict[str, Metric] = {}
    for metric in metrics:
        known.setdefault(metric.key, metric)
    every = list(known.values())
    return tuple(Column(metric, _apart(metric, every, _head), _apart(metric, every, _name)) for metric in every)


def _apart(metric: Metric, every: list[Metric], write: Callable[[Metric, str], str]) -> str:
    """The text of a metric with as much detail as it takes to be the only one."""
    texts = ([write(other, detail(other)) for other in every] for detail in DETAILS)
    number = every.index(metric)
    return next(found[number] for found in texts if found.count(found[number]) == 1)


def _head(metric: Metric, detail: str) -> str:
    return f"{metric.short} {detail}".rstrip()


def _name(metric: Metric, detail: str) -> str:
    return f"{metric.name.removesuffix(f' ({metric.by.extractor})')} ({detail})" if detail else metric.name
