"""The rows of a table or a gallery: each says how its pictures are drawn, and what its recipe adds to the run's."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
from PIL import Image

from surgery.experiment.controls import BASELINE, NO_OP, NOISE, RESEEDED
from surgery.graph.apply import Variants
from surgery.pipelines.draw import draw_pictures
from surgery.plan.paired import ModelPlan, plans_of_model
from surgery.plan.planned import plan_spec
from surgery.plan.planned_pair import AnyPlanned, PlannedPair, plan_model_points
from surgery.spec.load import Spec, read_spec

RESEED = 1_000_003  # added to the seeds of the baseline that is drawn again

RowKind = Literal["baseline", "variant", "control"]


@dataclass(frozen=True)
class Row(ABC):
    """Pictures of the same prompts. Prompt k starts from the noise of `seed + k`."""

    name: str
    kind: RowKind
    seed: int

    @abstractmethod
    def draw(self, prompts: Sequence[str], numbers: Sequence[int], call: Mapping[str, Any]) -> list[Image.Image]:
        """The pictures of the prompts with these (neighbouring) numbers, as one batch."""

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """What its pictures depend on beside the run and the prompts."""

    def attached_to(self, variants: Variants[Any] | None) -> Self:  # noqa: ARG002  (of rows that a model draws)
        """The same row drawn by another open pipeline; None: by none, as data for another process."""
        return self

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
        """What makes predictions of its own, a pipeline or a planned spec; None where they are those of another row."""
        return None


@dataclass(frozen=True)
class ModelRow(Row):
    """Drawn by a pipeline: that of the model as it is."""

    pipe: Any

    def draw(self, prompts: Sequence[str], numbers: Sequence[int], call: Mapping[str, Any]) -> list[Image.Image]:
        batch = [prompts[number] for number in numbers]
        drawings = draw_pictures(self.pipe, batch, seed=self.seed + numbers[0], batch_size=len(batch), call=call)
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

    def draw(self, prompts: Sequence[str], numbers: Sequence[int], call: Mapping[str, Any]) -> list[Image.Image]:
        return ModelRow(self.name, self.kind, self.seed, self.pipe).draw(prompts, numbers, call)

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
class NoiseRow(Row):
    """Pictures (width, height) of independent uniform pixels: no model draws worse."""

    size: tuple[int, int]

    def draw(self, prompts: Sequence[str], numbers: Sequence[int], call: Mapping[str, Any]) -> list[Image.Image]:  # noqa: ARG002  (as its siblings)
        shape = (self.size[1], self.size[0], 3)
        generators = [np.random.default_rng([self.seed, number]) for number in numbers]
        return [Image.fromarray(g.integers(0, 256, shape, dtype=np.uint8)) for g in generators]

    def recipe(self) -> dict[str, Any]:
        return {"row": NOISE, "plan": None, "means": None, "seeds_from": self.seed, "size": list(self.size)}


def baseline_row(pipe: Any, seed: int) -> ModelRow:
    """The model as it is."""
    return ModelRow(BASELINE, "baseline", seed, pipe)


def variant_rows(
    variants: Variants[Any],
    specs: Sequence[Spec],
    seed: int,
    *,
    profile: Path | None = None,
    taken: Sequence[str] = (),
) -> list[VariantRow]:
    """A row for each spec and each point of a sweep, under a name that no other has, and none of those `taken`.

    Raises:
        SpecError: a spec has faults.
        InputError: a file of means is not usable.
        RefusedError: a spec can't be done on this model.
    """
    points = (
        plan_model_points(spec, variants.first.anatomy, variants.second_anatomy, profile=profile) for spec in specs
    )
    planned = [point for of_spec in points for point in of_spec]
    for point in planned:
        variants.refuse_unfit_plan(point)
    names = names_apart([item.spec.name for item in planned], taken)
    return [VariantRow(name, "variant", seed, variants, item) for name, item in zip(names, planned, strict=True)]


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
