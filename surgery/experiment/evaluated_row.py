"""A row of an evaluation with its numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surgery.experiment.columns import Column
from surgery.experiment.own_model import OwnModel
from surgery.experiment.scores import Score
from surgery.metrics.pictures import PictureSet
from surgery.plan.cost import Cost
from surgery.plan.paired import ModelPlan
from surgery.plan.planned import PlannedSpec
from surgery.plan.planned_pair import AnyPlanned
from surgery.spec.load import Spec

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EvaluatedRow:
    """A row of the table. `kind` is baseline, variant, control or average; `pictures` are what its scores are of, where
    they are still there: None once they were not to be kept.

    `spec` and `plan` are those of a variant, and `planned` is where both come from; the spec of a point of a sweep
    knows the values of its variables. `errors` are its denoising errors by prompt and bin (N, bins), relative to the
    baseline's predictions; None for controls that have no model of their own. `stage` is the last that it came to,
    where there were stages. `own` is the model of a row that has one of its own, and `own_cost` what that costs.
    """

    name: str
    kind: str
    pictures: PictureSet | None
    scores: tuple[Score, ...]
    spec: Spec | None = None
    plan: ModelPlan | None = None
    errors: Array | None = None
    stage: str = ""
    planned: AnyPlanned | None = None
    own: OwnModel | None = None
    own_cost: Cost | None = None

    @property
    def cost(self) -> Cost | None:
        """What it costs beside the baseline, where that is known: of a spec for one transformer, or of a model."""
        return self.planned.cost if isinstance(self.planned, PlannedSpec) else self.own_cost

    def score(self, column: Column) -> Score | None:
        """Its number in a column; None where it has none."""
        return next((score for score in self.scores if score.metric.key == column.key), None)
