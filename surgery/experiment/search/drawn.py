"""Objectives of what is drawn: where a trajectory ends, and the picture, beside the baseline's from the same noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.experiment.bench import Bench
from surgery.experiment.engines import Tell
from surgery.experiment.search.objective import Found, runs_alone
from surgery.metrics.paired import paired_ssim
from surgery.pipelines.draw import draw_latents, draw_pictures
from surgery.pipelines.shared_text import text_encoded_once
from surgery.plan.planned import PlannedSpec
from surgery.plan.windowed import AnyPlan

Array = NDArray[Any]
What = Literal["latents", "pictures"]


@dataclass(frozen=True)
class DrawnUnit:
    """What a plan draws of the prompts of these numbers; the model as it is where there is no plan."""

    planned: PlannedSpec | None
    what: What
    numbers: range

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.what} of one set, prompts {self.numbers[0]} to {self.numbers[-1]}"

    @property
    def size(self) -> int:
        """How many it draws."""
        return len(self.numbers)

    def run(self, bench: Bench, tell: Tell) -> Array:
        """Latents (N, values) in float64, or pictures (N, 3, height, width) in bytes."""
        pipe = bench.run.pipe if self.planned is None else bench.variants.make(self.planned)
        prompts = [bench.prompts[number] for number in self.numbers]
        seed = bench.run.request.seed + self.numbers[0]
        with text_encoded_once([pipe], bench.run.texts):
            if self.what == "latents":
                found: Array = draw_latents(pipe, prompts, seed=seed, call=bench.run.call).double().numpy()
            else:
                drawn = draw_pictures(pipe, prompts, seed=seed, batch_size=len(prompts), call=bench.run.call)
                found = np.stack([np.asarray(each.image.convert("RGB")).transpose(2, 0, 1) for each in drawn])
        tell(len(prompts), "")
        return found


@dataclass(frozen=True, eq=False)
class BesideUnit:
    """The numbers of one plan: what it draws beside what the model as it is drew."""

    drawn: DrawnUnit
    row: str
    baseline: Array
    compare: Callable[[Array, Array], Array]

    @property
    def label(self) -> str:
        """What people call it."""
        return self.drawn.label

    @property
    def size(self) -> int:
        """How many it draws."""
        return self.drawn.size

    def run(self, bench: Bench, tell: Tell) -> Found:
        """One a prompt."""
        return {self.row: self.compare(self.drawn.run(bench, tell), self.baseline).tolist()}


@dataclass(frozen=True, eq=False)
class DrawnObjective:
    """How far what is drawn is from `baseline` (N, ...), what the model as it is draws of all prompts."""

    name: str
    what: What
    compare: Callable[[Array, Array], Array]
    baseline: Array
    num_steps: int

    weights = (1.0,)
    most = 1
    unedited = 0.0

    def within(self, plan: AnyPlan, part: int) -> AnyPlan:  # noqa: ARG002  (as its siblings)
        """All of it."""
        return plan

    def unit(self, rows: Mapping[str, PlannedSpec], part: int, numbers: range) -> BesideUnit:  # noqa: ARG002
        """One call of the variant's pipeline."""
        ((name, planned),) = rows.items()
        baseline = self.baseline[numbers.start : numbers.stop]
        return BesideUnit(DrawnUnit(planned, self.what, numbers), name, baseline, self.compare)

    def block_runs(self, plans: Sequence[AnyPlan]) -> float:
        """Those of all steps, one branch of guidance."""
        return self.num_steps * runs_alone(plans)

    def recipe(self) -> dict[str, Any]:
        """Its name; the call is the run's."""
        return {"objective": self.name}


def relative_distance(found: Array, expected: Array) -> Array:
    """|found - expected| / |expected| of each row."""
    distance: Array = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return distance


def unlike_by_ssim(found: Array, expected: Array) -> Array:
    """1 - SSIM of each picture."""
    return 1 - paired_ssim(torch.from_numpy(found), torch.from_numpy(expected))


DRAWN: dict[str, tuple[What, Callable[[Array, Array], Array]]] = {
    "trajectory-error": ("latents", relative_distance),
    "ssim": ("pictures", unlike_by_ssim),
}
