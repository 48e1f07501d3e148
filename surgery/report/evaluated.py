"""`evaluation.json` -> what figures, tables and the page are made of: rows, numbers, plans. No model is needed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.experiment.controls import BASELINE
from surgery.finite import from_finite
from surgery.metrics.intervals import Interval
from surgery.plan.cost import Cost
from surgery.plan.paired import ModelPlan, model_plan_from_json
from surgery.publish.artefact import STATES, State, state_text

PREFERRED = "denoising error"  # to rank by: it takes the fewest prompts to tell layers apart
KINDS = ("baseline", "variant", "control")
Value = int | float | str


@dataclass(frozen=True)
class MeasuredMetric:
    """A metric that rows have numbers of; `name` is its key in the file, `head` is short."""

    name: str
    head: str
    key: str
    higher_is_better: bool
    is_paired: bool
    made_with: str = ""
    flag: str = ""

    @property
    def better(self) -> str:
        """`higher is better`."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"


@dataclass(frozen=True)
class OwnMeasured:
    """A model of its own that was measured: where it lay, what tells it from others, and what its recipe said."""

    path: str
    contents: Mapping[str, Any]
    state: State | None = None
    plan_hash: str | None = None
    base: str | None = None
    healed: Mapping[str, Any] | None = None

    @property
    def told(self) -> str:
        """What it is, in words."""
        if self.state is None:
            return f"{self.path}: a model of its own, which has no recipe"
        return f"{self.path}, compiled from {self.base}: {state_text(self.state, self.healed)}"


@dataclass(frozen=True)
class MeasuredRow:
    """A row. `numbers` and `differences` (to the baseline) are by the names of metrics.

    `stem`, `point`, `plan`, `spec_text` and `cost` are those of a variant, as far as the file holds them; `own` is of
    one that is a model of its own.
    """

    name: str
    kind: str
    numbers: Mapping[str, Interval]
    differences: Mapping[str, Interval] = field(default_factory=dict)
    stem: str = ""
    point: Mapping[str, Value] = field(default_factory=dict)
    plan: ModelPlan | None = None
    spec_text: str | None = None
    cost: Cost | None = None
    own: OwnMeasured | None = None


@dataclass(frozen=True)
class Measured:
    """All rows of an evaluation, its metrics in order, and how they were made."""

    rows: tuple[MeasuredRow, ...]
    metrics: tuple[MeasuredMetric, ...]
    notes: tuple[str, ...]
    recipe: Mapping[str, Any]

    @property
    def variants(self) -> list[MeasuredRow]:
        """The rows of specs."""
        return [row for row in self.rows if row.kind == "variant"]

    @property
    def prompts(self) -> list[str]:
        """What was drawn, in order."""
        return [str(prompt) for prompt in self.recipe["prompts"]]

    @property
    def version(self) -> str:
        """That of the program which measured."""
        versions = self.recipe.get("versions")
        return str(versions.get("surgery", "")) if isinstance(versions, Mapping) else ""

    @property
    def class_name(self) -> str:
        """The class of the model, as plans name it; `model` where there is no plan."""
        return next((row.plan.class_name for row in self.rows if row.plan is not None), "model")

    def find(self, name: str) -> MeasuredRow | None:
        """The row of a name."""
        return next((row for row in self.rows if row.name == name), None)

    def number(self, name: str, metric: MeasuredMetric) -> Interval | None:
        """What the row of a name has of a metric."""
        row = self.find(name)
        return None if row is None else row.numbers.get(metric.name)

    def metric(self, name: str | None) -> MeasuredMetric | None:
        """The metric of a name or a head; without one, that by which variants are ranked. None where there is none.

        Raises:
            InputError: no metric is called so.
        """
        if name is None:
            return next((one for one in self.metrics if one.key == PREFERRED), next(iter(self.metrics), None))
        found = next((one for one in self.metrics if name in (one.name, one.head)), None)
        if found is None:
            names = ", ".join(one.name for one in self.metrics)
            raise InputError(f"nothing is called {name} in the evaluation; it has {names or 'no metrics'}")
        return found


def read_measured(path: Path) -> Measured:
    """Read an `evaluation.json`.

    Raises:
        InputError: it can't be read, is no evaluation, or is damaged.
    """
    with told_as(f"the evaluation {path} can't be read"):
        document = from_finite(json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(document, dict) or "rows" not in document or "recipe" not in document:
        raise InputError(f"{path} is no evaluation: `surgery evaluate SPEC... --prompts FILE --out DIR` writes one")
    with told_as(f"the evaluation {path} is damaged"):
        return measured_from_json(document)


def measured_from_json(document: Mapping[str, Any]) -> Measured:
    """What an evaluation's `to_json` has written; raises what a damaged document makes it raise."""
    rows = tuple(_read_row(row) for row in document["rows"])
    if [row.name for row in rows if row.kind == BASELINE] != [BASELINE] or len({row.name for row in rows}) != len(rows):
        raise ValueError("it has not one baseline, or it has rows of one name")
    if not isinstance(document["recipe"]["prompts"], list) or not document["recipe"]["prompts"]:
        raise ValueError("its prompts are no list")
    notes = tuple(str(note) for note in document["notes"])
    return Measured(rows, _read_metrics(document["rows"]), notes, dict(document["recipe"]))


def _read_row(data: Mapping[str, Any]) -> MeasuredRow:
    scores = {str(name): score for name, score in data["scores"].items()}
    return MeasuredRow(
        str(data["name"]),
        _read_kind(data["kind"]),
        {name: _read_interval(score) for name, score in scores.items()},
        {
            name: _read_interval(score["difference_to_baseline"])
            for name, score in scores.items()
            if "difference_to_baseline" in score
        },
        str(data.get("spec", "")),
        _read_point(data.get("point", {})),
        model_plan_from_json(data["plan"]) if "plan" in data else None,
        None if data.get("spec_text") is None else str(data["spec_text"]),
        _read_cost(data["cost"]) if "cost" in data else None,
        _read_own(data["own_model"]) if "own_model" in data else None,
    )


def _read_own(data: Mapping[str, Any]) -> OwnMeasured:
    made, state = data.get("compiled_from"), data.get("state")
    if made is None:
        return OwnMeasured(str(data["path"]), dict(data["contents"]))
    if state not in STATES:
        raise ValueError(f"a model is in the state {state!r}, which is none of {', '.join(STATES)}")
    healed = dict(data["healed"]) if "healed" in data else None
    base, plan = str(made["base"]["model"]), str(made["plan"])
    return OwnMeasured(str(data["path"]), dict(data["contents"]), state, plan, base, healed)


def _read_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"a row is of the kind {kind!r}, which is none of {', '.join(KINDS)}")
    return kind


def _read_point(data: Mapping[str, Any]) -> dict[str, Value]:
    found = dict(data)
    if not all(isinstance(value, Value) for value in found.values()):
        raise ValueError("a variable of a point is neither a number nor a text")
    return found


def _read_cost(data: Mapping[str, Any]) -> Cost:
    found = Cost(**data)
    parts = (found.parameters_before, found.parameters_after, found.executions_before, found.flops_before)
    after = (found.executions_after, found.flops_after)
    if not all(isinstance(part, int | float) for part in (*parts, *(part for part in after if part is not None))):
        raise ValueError("a cost is no number")
    return found


def _read_interval(data: Mapping[str, Any]) -> Interval:
    low, high = (None if data[end] is None else float(data[end]) for end in ("low", "high"))
    found = Interval(float(data["value"]), low, high, int(data["num"]), str(data["method"]), float(data["level"]))
    if not 0 < found.level < 1 or found.num < 1 or (low is not None and high is not None and low > high):
        raise ValueError(f"{found} is no interval")
    return found


def _read_metrics(rows: Sequence[Mapping[str, Any]]) -> tuple[MeasuredMetric, ...]:
    """Each metric once, in the order in which rows have them first."""
    found: dict[str, MeasuredMetric] = {}
    for row in rows:
        for name, score in row["scores"].items():
            metric = MeasuredMetric(
                name,
                str(score.get("head", name)),
                str(score["key"]),
                bool(score["higher_is_better"]),
                bool(score["paired_with_the_baseline"]),
                str(score["made_with"]),
                str(score.get("flag", "")),
            )
            found.setdefault(name, metric)
    return tuple(found.values())
