"""Where units of work are done: a pipeline that is open, with the rows and the prompts of a run.

A bench is described by data that another process, on this machine or another, opens into a bench of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from surgery.anatomy.sources import ModelSource, with_whole_paths
from surgery.errors import InputError
from surgery.experiment.predictors import Predictors
from surgery.experiment.rows import Row
from surgery.experiment.run import Run, RunRequest, open_run
from surgery.graph.apply import Variants
from surgery.graph.shared_forward import DEFAULT_MEMORY
from surgery.pipelines.draw import OWN
from surgery.pipelines.learn import learn_unless_known
from surgery.pipelines.pretrained import pick_device


@dataclass(frozen=True)
class Bench:
    """An open pipeline, the rows that are drawn and measured with it, and the prompts of all of them.

    `memory` bounds, in bytes, the states that wait for another variant; `kept` is what units open once and use again.
    """

    run: Run
    rows: tuple[Row, ...]
    prompts: tuple[str, ...]
    memory: int = DEFAULT_MEMORY
    known: dict[tuple[str, ...], Predictors] = field(default_factory=dict, repr=False, compare=False)
    kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    def predictors(self, names: Sequence[str]) -> Predictors:
        """What predicts for these rows; the last that was asked for is kept."""
        return self.predictors_of({name: self.row(name).predictor for name in names})

    def predictors_of(self, rows: Mapping[str, Any]) -> Predictors:
        """What predicts for rows that a unit brings along, whose names say what they are; the last is kept."""
        key = tuple(rows)
        if key not in self.known:
            self.known.clear()
            self.known[key] = Predictors(rows, self.run.pipe, self.memory)
        return self.known[key]

    def let_go_but(self, names: Sequence[str]) -> None:
        """Let go of the models that rows have of their own, but for those of these rows."""
        for row in self.rows:
            if row.name not in names:
                row.let_go()

    @cached_property
    def variants(self) -> Variants[Any]:
        """What makes the variants of plans that a unit brings along."""
        return Variants(self.run.pipe)

    def description(self) -> "BenchDescription":
        """What another process needs to open the same bench."""
        request = self.run.request
        own = {item.name: getattr(request, item.name) for item in fields(RunRequest)}
        return BenchDescription(
            with_whole_paths(self.run.source),
            RunRequest(**{**own, "device": pick_device(request.device)}),
            tuple(row.attached_to(None) for row in self.rows),
            self.prompts,
            self.memory,
            self.run.recipe(),
        )


@dataclass(frozen=True)
class BenchDescription:
    """A bench as plain data; `recipe` is that of the run it was made of."""

    source: ModelSource
    request: RunRequest
    rows: tuple[Row, ...]
    prompts: tuple[str, ...]
    memory: int
    recipe: dict[str, Any]

    def open(self) -> Bench:
        """The bench, with a pipeline of its own.

        Raises:
            InputError: the model can't be loaded here, or it, its libraries or the device are others here.
        """
        run = open_run(self.source, self.request, self.prompts, noise=self.recipe.get("noise", OWN))
        here = run.recipe()
        others = [
            _difference(name, here.get(name), value) for name, value in self.recipe.items() if here[name] != value
        ]
        if others:
            raise InputError(f"it would draw other pictures: {'; '.join(others)}")
        learn_unless_known(run.pipe, run.call)
        variants = Variants(run.pipe)
        return Bench(run, tuple(row.attached_to(variants) for row in self.rows), self.prompts, self.memory)


def _difference(name: str, here: Any, there: Any) -> str:
    """What is another here than where the run was begun."""
    if not isinstance(here, dict) or not isinstance(there, dict):
        return f"{name} is {here} here, and {there} where the run was begun"
    keys = [key for key in {**here, **there} if here.get(key) != there.get(key)]
    return "; ".join(_difference(f"{name} {key}", here.get(key), there.get(key)) for key in keys)
