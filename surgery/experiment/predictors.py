"""What the rows of an evaluation predict at one noised batch: pipelines one by one, planned specs in one walk."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from surgery.errors import TraceError
from surgery.experiment.rows import OwnModelRow
from surgery.graph.apply import Variants
from surgery.graph.replace import Means
from surgery.graph.shared_forward import DEFAULT_MEMORY, SharedForward
from surgery.graph.transformer_variants import tensors_of_means
from surgery.graph.windowed_pipeline import windows_of
from surgery.pipelines.noised import predict_noised
from surgery.pipelines.noised_call import NoisedCall
from surgery.pipelines.standing import Standing, standing_at
from surgery.plan.plan import Plan
from surgery.plan.planned import PlannedSpec
from surgery.plan.windowed import WindowedPlan

MAX_SHARED = 8  # sets of plans: windows make another of each part of the noise range and each branch

OnPrediction = Callable[[str, torch.Tensor], None]


@dataclass(frozen=True)
class AskedPrediction:
    """What rows are asked to predict: `given` are the arguments of `predict_noised` behind the pipeline, `standing` is
    where the call stands, and `expected` the baseline's own call.
    """

    given: tuple[Any, ...]
    standing: Standing
    expected: NoisedCall


class Predictors:
    """Rows by name: pipelines that share all but their transformers with the `baseline`, rows that load such a pipeline
    when it is needed, or planned specs for the baseline.

    The specs' variants are not built but where their forwards can't be shared; `memory` bounds, in bytes, the states
    that wait for another variant.
    """

    def __init__(self, rows: Mapping[str, Any], baseline: Any, memory: int = DEFAULT_MEMORY) -> None:
        self.baseline, self.memory = baseline, memory
        self.planned = {name: row for name, row in rows.items() if isinstance(row, PlannedSpec)}
        self.pipes = {name: row for name, row in rows.items() if name not in self.planned}
        self.shared: OrderedDict[tuple[Plan, ...], SharedForward] = OrderedDict()

    @cached_property
    def variants(self) -> Variants[Any]:
        """What makes the variants of the baseline."""
        return Variants(self.baseline)

    @cached_property
    def means(self) -> dict[str | None, Means]:
        """The tensors of all files of means, by digest."""
        files = {row.means.digest: row.means for row in self.planned.values() if row.means is not None}
        return {digest: tensors_of_means(means) for digest, means in files.items()}

    def windows(self, name: str) -> WindowedPlan | None:
        """The plan of a row with windows; None of any other."""
        if isinstance(self.pipes.get(name), OwnModelRow):
            return None
        if name in self.pipes:
            return windows_of(self.pipes[name])
        plan = self.planned[name].plan
        return plan if isinstance(plan, WindowedPlan) else None

    def pipe(self, name: str) -> Any:
        """The pipeline of a row that is no planned spec."""
        found = self.pipes[name]
        return found.pipe if isinstance(found, OwnModelRow) else found

    def predict(self, names: Sequence[str], at: AskedPrediction, on_prediction: OnPrediction) -> None:
        """Hand on what these rows predict, each once.

        Raises:
            RefusedError: a plan can't be done on the model's graph.
            InputError: the pipeline refuses the call.
        """
        left = dict.fromkeys(names)

        def keep(name: str, prediction: torch.Tensor) -> None:
            del left[name]
            on_prediction(name, prediction)

        try:
            self.predict_planned([name for name in names if name in self.planned], at, keep)
        except TraceError:  # what is left runs as it would alone
            for name in [name for name in left if name in self.planned]:
                self.pipes[name] = self.variants.make(self.planned.pop(name))
        for name in list(left):
            with standing_at(timestep=at.standing.share, step=at.standing.step, branch=at.standing.branch):
                pipe = self.pipe(name)
                keep(name, at.expected.prediction if pipe is self.baseline else predict_noised(pipe, *at.given))

    def predict_planned(self, names: Sequence[str], at: AskedPrediction, on_prediction: OnPrediction) -> None:
        """The same for planned specs."""
        expected = at.expected
        rows: dict[Plan, list[str]] = {}
        for name in names:
            rows.setdefault(self.plan_at(name, at.standing), []).append(name)
        plans = tuple(rows)
        if not plans:
            return
        if not expected.is_alone:
            raise TraceError("the pipeline calls its transformer more than once, or that changes what it is given")
        if expected.call.model is not self.variants.first.model:  # a second transformer, which no planned spec edits
            for name in names:
                on_prediction(name, expected.prediction)
            return

        def on_output(number: int, output: Any) -> None:
            found = expected.prediction_of(output)
            if found is None:
                found = predict_noised(self.baseline, *at.given, instead=lambda *_args, **_kwargs: output)
            for name in rows[plans[number]]:
                on_prediction(name, found)

        with torch.no_grad():
            self.shared_forward(plans).run_all(expected.call.args, expected.call.kwargs, on_output)

    def plan_at(self, name: str, standing: Standing) -> Plan:
        """What a planned row runs there."""
        plan = self.planned[name].plan
        if not isinstance(plan, WindowedPlan):
            return plan
        return plan.plan_at(standing.share or 0.0, standing.step or 0, standing.branch or "conditional")

    def shared_forward(self, plans: tuple[Plan, ...]) -> SharedForward:
        """What runs these plans together."""
        if plans not in self.shared:
            self.shared[plans] = SharedForward(self.variants.first, plans, self.means, memory=self.memory)
            while len(self.shared) > MAX_SHARED:
                self.shared.popitem(last=False)
        self.shared.move_to_end(plans)
        return self.shared[plans]
