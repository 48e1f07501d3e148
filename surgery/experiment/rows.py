"""The rows of a table or a gallery: each says how its pictures are drawn, and what its recipe adds to the run's."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
from PIL import Image

from surgery.experiment.controls import BASELINE, NO_OP, NOISE, RESEEDED
from surgery.experiment.own_model import OwnModel
from surgery.experiment.run import Run
from surgery.graph.apply import Variants
from surgery.pipelines.draw import draw_pictures
from surgery.plan.cost import Cost
from surgery.plan.paired import ModelPlan, plans_of_model
from surgery.plan.planned import plan_spec
from surgery.plan.planned_pair import AnyPlanned, PlannedPair, plan_model_points
from surgery.spec.load import Spec, read_spec

RESEED = 1_000_003  # added to the seeds of the baseline that is drawn again

RowKind = Literal["baseline", "variant", "control"]
Target = Spec | OwnModel  # what a row, or a sweep of rows, is asked for by


@dataclass(frozen=True)
class Row(ABC):
    """Pictures of the same prompts. Prompt k starts from the noise of `seed + k`."""

    name: str
    kind: RowKind
    seed: int

    @abstractmethod
    def draw(self, prompts: Sequence[str], numbers: Sequence[int], run: Run) -> list[Image.Image]:
        """The pictures of the prompts with these (neighbouring) numbers, in batches; of shared noise, from 0 on."""

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """What its pictures depend on beside the run and the prompts."""

    def attached_to(self, variants: Variants[Any] | None) -> Self:  # noqa: ARG002  (of rows that a model draws)
        """The same row drawn by another open pipeline; None: by none, as data for another process."""
        return self

    def let_go(self) -> None:  # noqa: B027  (most rows share the weights of the run)
        """Let go of a model that the row has loaded for itself; it is loaded again where it is needed again."""

    @property
    def spec(self) -> Spec | None:
        """The spec that it is of; None of baseline and controls."""
        return None

    @property
    def plan(self) -> ModelPlan | None:
        """What its spec does to the model; None where it is of no spec."""
        return None

    @property
    def predictor(self) -> Any:
        """What makes predictions of its own: a pipeline, a planned spec, or the row itself where it loads a model when
        that is needed. None where they are those of another row.
        """
        return None


@dataclass(frozen=True)
class ModelRow(Row):
    """Drawn by a pipeline: that of the model as it is."""

    pipe: Any

    def draw(self, prompts: Sequence[str], numbers: Sequence[int], run: Run) -> list[Image.Image]:
        batch = [prompts[number] for number in numbers]
        seed, size = self.seed + numbers[0], run.request.batch_size
        drawings = draw_pictures(self.pipe, batch, seed=seed, batch_size=size, call=run.call, noise=run.noise)
        return [drawing.image for drawing in drawings]

    def recipe(self) -> dict[str, Any]:
        return {"row": "model", "plan": None, "means": None, "seeds_from": self.seed, "size": None}

    def attached_to(self, variants: Variants[Any] | None) -> Self:
        return replace(self, pipe=None if variants is None else variants.target)

    @property
    def predictor(self) -> Any:
        return None if self.name == RESEEDED else self.pipe


@dataclass(frozen=True)
class VariantRow(Row):
    """Drawn by the pipeline of a variant, which is built when it is first needed."""

    variants: Variants[Any]
    planned: AnyPlanned

    @cached_property
    def pipe(self) -> Any:
        """The pipeline of the variant."""
        return self.variants.make(self.planned)

    def draw(self, prompts: Sequence[str], numbers: Sequence[int], run: Run) -> list[Image.Image]:
        return ModelRow(self.name, self.kind, self.seed, self.pipe).draw(prompts, numbers, run)

    def recipe(self) -> dict[str, Any]:
        if self.plan is None:
            return {"row": "unchanged graph", "plan": None, "means": None, "seeds_from": self.seed, "size": None}
        means = [item.values for each in plans_of_model(self.plan) for item in each.replacements]
        return {"row": "model", "plan": self.plan.hash, "means": means, "seeds_from": self.seed, "size": None}

    def attached_to(self, variants: Variants[Any] | None) -> Self:
        return replace(self, variants=cast("Variants[Any]", variants))

    @property
    def spec(self) -> Spec | None:
        return None if self.kind == "control" else self.planned.spec

    @property
    def plan(self) -> ModelPlan | None:
        return None if self.kind == "control" else self.planned.plan

    @property
    def predictor(self) -> Any:
        return self.pipe if isinstance(self.planned, PlannedPair) else self.planned


@dataclass(frozen=True)
class OwnModelRow(Row):
    """Drawn by a model of its own within the pipeline `base`: it is loaded when it is first needed, and let go again.

    `cost` is what it costs beside the base, as far as that is known.
    """

    model: OwnModel
    base: Any
    cost: Cost | None = None

    @cached_property
    def pipe(self) -> Any:
        """The pipeline of the base with the model's own transformers."""
        return self.model.open_in(self.base)

    def let_go(self) -> None:
        self.__dict__.pop("pipe", None)

    def draw(self, prompts: Sequence[str], numbers: Sequence[int], run: Run) -> list[Image.Image]:
        return ModelRow(self.name, self.kind, self.seed, self.pipe).draw(prompts, numbers, run)

    def recipe(self) -> dict[str, Any]:
        own = dict(self.model.contents)
        return {"row": "own model", "own": own, "plan": None, "means": None, "seeds_from": self.seed, "size": None}

    def attached_to(self, variants: Variants[Any] | None) -> Self:
        base = None if variants is None else variants.target
        return replace(self, base=base, model=self.model.with_whole_paths())

    @property
    def plan(self) -> ModelPlan | None:
        artefact = self.model.artefact
        return artefact.plan if artefact is not None and self.model.is_as_compiled else None

    @property
    def predictor(self) -> Any:
        return self


@dataclass(frozen=True)
class NoiseRow(Row):
    """Pictures (width, height) of independent uniform pixels: no model draws worse."""

    size: tuple[int, int]

    def draw(self, prompts: Sequence[str], numbers: Sequence[int], run: Run) -> list[Image.Image]:  # noqa: ARG002  (as its siblings)
        shape = (self.size[1], self.size[0], 3)
        generators = [np.random.default_rng([self.seed, number]) for number in numbers]
        return [Image.fromarray(g.integers(0, 256, shape, dtype=np.uint8)) for g in generators]

    def recipe(self) -> dict[str, Any]:
        return {"row": NOISE, "plan": None, "means": None, "seeds_from": self.seed, "size": list(self.size)}


def baseline_row(pipe: Any, seed: int) -> ModelRow:
    """The model as it is."""
    return ModelRow(BASELINE, "baseline", seed, pipe)


def rows_of_targets(
    variants: Variants[Any],
    targets: Sequence[Target],
    seed: int,
    *,
    profile: Path | None = None,
    taken: Sequence[str] = (),
) -> list[Row]:
    """A row for each spec, each point of a sweep and each model of its own, in their order, under a name that no other
    has, and none of those `taken`.

    Raises:
        SpecError: a spec has faults.
        InputError: a file of means is not usable.
        RefusedError: a spec can't be done on this model.
    """
    found: list[AnyPlanned | OwnModel] = []
    for target in targets:
        found += [target] if isinstance(target, OwnModel) else _points_of(variants, target, profile)
    names = names_apart([item.name if isinstance(item, OwnModel) else item.spec.name for item in found], taken)
    return [_row_of(name, item, variants, seed) for name, item in zip(names, found, strict=True)]


def _points_of(variants: Variants[Any], spec: Spec, profile: Path | None) -> list[AnyPlanned]:
    """What is planned of a spec, or of each point of a sweep."""
    points = plan_model_points(spec, variants.first.anatomy, variants.second_anatomy, profile=profile)
    for point in points:
        variants.refuse_unfit_plan(point)
    return points


def _row_of(name: str, item: AnyPlanned | OwnModel, variants: Variants[Any], seed: int) -> Row:
    if not isinstance(item, OwnModel):
        return VariantRow(name, "variant", seed, variants, item)
    cost = item.cost(variants.first.anatomy, variants.first.model.dtype)
    return OwnModelRow(name, "variant", seed, item, variants.target, cost)


def control_rows(variants: Variants[Any], seed: int, size: tuple[int, int]) -> list[Row]:
    """What every table has beside the variants: nothing changed, other noise, and no picture at all."""
    unchanged = plan_spec(read_spec("surgery: v1\noperations: []"), variants.first.anatomy)
    return [
        VariantRow(NO_OP, "control", seed, variants, unchanged),
        ModelRow(RESEEDED, "control", seed + RESEED, variants.target),
        NoiseRow(NOISE, "control", seed, size),
    ]


def names_apart(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """The same names, with a number behind each that was there before."""
    found: list[str] = []
    for stem in names:
        used = {*taken, *found}
        numbered = (f"{stem}-{number}" for number in range(2, len(used) + 3))
        found.append(next(name for name in (stem, *numbered) if name not in used))
    return found
