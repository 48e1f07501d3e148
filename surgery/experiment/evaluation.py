"""Variants of a model, measured: pictures from shared noise and text; scores beside baseline and three controls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.identity import hash_file, identify
from surgery.anatomy.sources import ModelSource, find_source
from surgery.bundled import DEMO_CALL, DEMO_NAME
from surgery.errors import InputError
from surgery.experiment.captions import open_picture
from surgery.experiment.columns import Column, columns_of
from surgery.experiment.controls import BASELINE, CONTROLS, NO_OP, NOISE, RESEEDED
from surgery.experiment.denoising_error import DenoisingErrors, denoising_errors
from surgery.experiment.judges import JudgeRequest, load_judges
from surgery.experiment.picture_store import PictureStore
from surgery.experiment.prompts import PromptSet
from surgery.experiment.scores import Score, notes_on_number, score_row
from surgery.experiment.sights import Observed
from surgery.experiment.variants import library_versions, means_file, plan_variants
from surgery.graph.apply import apply
from surgery.metrics.pictures import PictureSet
from surgery.pipelines.draw import check_call, draw_pictures
from surgery.pipelines.noised import encode_picture, picture_size
from surgery.pipelines.pretrained import check_device, load_pretrained, pick_device, pick_dtype
from surgery.pipelines.shared_text import text_encoded_once
from surgery.plan.plan import Plan
from surgery.progress import show_progress
from surgery.spec.load import Spec, load_spec, read_spec

RESEED = 1_000_003  # added to the seeds of the baseline that is drawn again
STORE = "store"

Array = NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class EvaluationRequest:
    """What to measure; see `surgery evaluate --help`."""

    specs: tuple[str, ...]
    prompts: PromptSet
    out: Path
    judges: JudgeRequest
    model: str | None = None
    profile: Path | None = None
    seed: int = 0
    batch_size: int = 8
    bins: int = 10
    dtype: str = "auto"
    device: str = "auto"
    call: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluatedRow:
    """A row of the table. `kind` is baseline, variant or control; `pictures` are what its scores are of.

    `errors` are its denoising errors by prompt and bin (N, bins), relative to the baseline's predictions; None for
    controls that have no model of their own.
    """

    name: str
    kind: str
    pictures: PictureSet
    scores: tuple[Score, ...]
    plan: Plan | None = None
    errors: Array | None = None

    def score(self, column: Column) -> Score | None:
        """Its number in a column; None where it has none."""
        return next((score for score in self.scores if score.metric.key == column.key), None)


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and how. `notes` are what a reader of the numbers should know."""

    rows: tuple[EvaluatedRow, ...]
    recipe: Mapping[str, Any]
    notes: tuple[str, ...]

    def row(self, name: str) -> EvaluatedRow:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What was measured, each metric under a head and a name of its own."""
        return columns_of(score.metric for row in self.rows for score in row.scores)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json` and `evaluation.json`."""
        rows, names = [], {column.key: column.name for column in self.columns}
        for row in self.rows:
            found: dict[str, Any] = {"name": row.name, "kind": row.kind}
            if row.plan is not None:
                found["plan"] = row.plan.to_json()
            found["scores"] = {names[score.metric.key]: score.to_json() for score in row.scores}
            if row.errors is not None:
                found["denoising_error_by_bin"] = row.errors.mean(0).tolist()
            rows.append(found)
        return {"rows": rows, "notes": list(self.notes), "recipe": dict(self.recipe)}


@dataclass(frozen=True)
class _Drawn:
    """A row before it is scored: its pipeline (None: noise) and the seed of its first prompt."""

    name: str
    kind: str
    pipe: Any
    seed: int
    plan: Plan | None = None


def evaluate(request: EvaluationRequest, say: Say = lambda text: None) -> Evaluation:  # noqa: ARG005  (nobody)
    """Draw and score all rows. What was drawn lies under a hash of its recipe in the target: a later run goes on.

    Raises:
        InputError: a spec, the model, a judge or an option is not usable.
        SpecError: a spec has faults.
        RefusedError: a spec can't be done on this model.
    """
    specs = [load_spec(path) for path in request.specs]
    source = find_model(specs, request.model)
    call = {**(DEMO_CALL if source.name == DEMO_NAME else {}), **request.call}
    device = check_device(request.device)
    judges, notes = load_judges(request.judges, request.prompts, source.name, request.out / STORE, device=device)
    notes += notes_on_number(len(request.prompts.prompts), judges)
    pipe = load_pretrained(source, dtype=request.dtype, device=request.device)
    pipe.set_progress_bar_config(disable=True)
    check_call(pipe, call)
    recipe = make_recipe(source, request, call)
    texts: dict[str, Any] = {}
    with text_encoded_once([pipe], texts):  # before a spec is applied: what leaks into the original shows in the no-op
        draw_rows([_Drawn(BASELINE, BASELINE, pipe, request.seed)], request, call, recipe, count=request.batch_size)
    drawn = list_rows(pipe, specs, request)
    pipes = [row.pipe for row in drawn if row.pipe is not None]
    with text_encoded_once(list({id(each): each for each in pipes}.values()), texts):
        pictures = draw_rows(drawn, request, call, recipe)
        errors = measure_errors(pipe, drawn, pictures[BASELINE], request, call, say)
    notes += notes_on_controls(pictures)
    rows = []
    for row in drawn:
        found = errors.get(row.name)
        observed = Observed(
            pictures[row.name],
            pictures[BASELINE],
            request.prompts.prompts,
            judges,
            None if found is None else (found, errors[BASELINE]),
            has_truth=bool(request.prompts.pictures),
        )
        by_bin = None if found is None else found.to_baseline
        scores = tuple(score_row(observed))
        rows.append(EvaluatedRow(row.name, row.kind, pictures[row.name], scores, row.plan, by_bin))
    made_with = {**recipe, "prompts": list(request.prompts.prompts), "judges": judges.to_json()}
    return Evaluation(tuple(rows), made_with, tuple(notes))


def notes_on_controls(pictures: Mapping[str, PictureSet]) -> list[str]:
    """A note where the unchanged graph has not drawn the baseline's pictures."""
    one, other = (pictures[name].all_pixels() for name in (NO_OP, BASELINE))
    changed = int((one != other).flatten(1).any(1).sum())
    if not changed:
        return []
    return [
        f"{NO_OP} differs from the baseline in {changed} of {len(one)} pictures: differences no larger than its own "
        "come from the machine or from a fault, not from the surgery"
    ]


def find_model(specs: Sequence[Spec], override: str | None) -> ModelSource:
    """The pipeline of one model that all specs are for; raises InputError where there is none."""
    names = {override or spec.model for spec in specs}
    if len(names) != 1 or None in names:
        shown = ", ".join(sorted(str(name) for name in names))
        raise InputError(f"the specs name not one model but {shown}; give --model")
    source = find_source(str(names.pop()))
    if source.pipeline is None:
        raise InputError(f"{source.name} is a bare transformer; to draw pictures, give the folder of its pipeline")
    return source


def list_rows(pipe: Any, specs: Sequence[Spec], request: EvaluationRequest) -> list[_Drawn]:
    """The baseline, the variants, and the controls: nothing changed, other noise, and no picture at all."""
    variants = plan_variants(specs, read_anatomy(pipe.transformer), request.profile, taken=(BASELINE, *CONTROLS))
    rows = [_Drawn(BASELINE, BASELINE, pipe, request.seed)]
    for variant in variants:
        edited = apply(pipe, variant.plan, profile=means_file(variant.spec, request.profile))
        rows.append(_Drawn(variant.name, "variant", edited, request.seed, variant.plan))
    unchanged = apply(pipe, read_spec("surgery: v1\noperations: []"))
    rows.append(_Drawn(NO_OP, "control", unchanged, request.seed))
    rows.append(_Drawn(RESEEDED, "control", pipe, request.seed + RESEED))
    rows.append(_Drawn(NOISE, "control", None, request.seed))
    return rows


def draw_rows(
    rows: Sequence[_Drawn],
    request: EvaluationRequest,
    call: Mapping[str, Any],
    recipe: Mapping[str, Any],
    *,
    count: int | None = None,
) -> dict[str, PictureSet]:
    """The pictures of each row, or the first `count`; those that an earlier run has drawn are found again."""
    store = PictureStore(request.out / STORE / "pictures")
    prompts = request.prompts.prompts
    found: dict[str, PictureSet] = {}
    num = len(prompts) if count is None else min(count, len(prompts))
    with show_progress(len(rows) * num, unit="picture", label="drawing") as meter:
        for row in rows:
            meter.note(row.name)
            means = None if row.plan is None else [item.values for item in row.plan.replacements]
            own = {
                "row": NOISE if row.pipe is None else "unchanged graph" if row.name == NO_OP else "model",
                "plan": None if row.plan is None else row.plan.hash,
                "means": means,
                "seeds_from": row.seed,
                "size": list(found[BASELINE].size) if row.pipe is None else None,
            }
            draw = _draw_noise(found[BASELINE].size, row.seed) if row.pipe is None else _draw(row, prompts, call)
            found[row.name] = store.draw(
                {**recipe, **own, "prompts": list(prompts)},
                num,
                request.batch_size,
                draw,
                meter.advance,
            )
    return found


def _draw(row: _Drawn, prompts: Sequence[str], call: Mapping[str, Any]) -> Callable[[Sequence[int]], list[Image.Image]]:
    def draw_batch(numbers: Sequence[int]) -> list[Image.Image]:
        batch = [prompts[number] for number in numbers]
        seed = row.seed + numbers[0]
        drawings = draw_pictures(row.pipe, batch, seed=seed, batch_size=len(batch), call=call)
        return [drawing.image for drawing in drawings]

    return draw_batch


def _draw_noise(size: tuple[int, int], seed: int) -> Callable[[Sequence[int]], list[Image.Image]]:
    """Pictures of independent uniform pixels."""

    def draw_batch(numbers: Sequence[int]) -> list[Image.Image]:
        shape = (size[1], size[0], 3)
        generators = [np.random.default_rng([seed, number]) for number in numbers]
        return [Image.fromarray(g.integers(0, 256, shape, dtype=np.uint8)) for g in generators]

    return draw_batch


def measure_errors(
    pipe: Any,
    rows: Sequence[_Drawn],
    baseline: PictureSet,
    request: EvaluationRequest,
    call: Mapping[str, Any],
    say: Say,
) -> dict[str, DenoisingErrors]:
    """The denoising errors of all rows with a model of their own, on the prompts' pictures, or the baseline's, noised.

    Pictures of other sizes are scaled and cut to the middle.
    """
    height, width = picture_size(pipe, {**call, "height": baseline.size[1], "width": baseline.size[0]})
    pipes = {row.name: row.pipe for row in rows if row.pipe is not None and row.name != RESEEDED}
    images = open_pictures(request.prompts, baseline)
    try:
        clean = [
            encode_picture(pipe, image, height, width, torch.Generator().manual_seed(request.seed + number))
            for number, image in enumerate(images)
        ]
        total = request.bins * len(images) * len(pipes)
        with show_progress(total, unit="prediction", label="denoising error") as meter:
            found = denoising_errors(
                pipes,
                pipe,
                torch.cat(clean),
                request.prompts.prompts,
                seeds=[request.seed + number for number in range(len(images))],
                bins=request.bins,
                batch_size=request.batch_size,
                call=call,
                on_batch=meter.advance,
            )
    except InputError as error:
        say(f"no denoising error: {error}")
        return {}
    return found


def open_pictures(prompts: PromptSet, baseline: PictureSet) -> list[Image.Image]:
    """The pictures that the prompts describe, where there are such, or else those that the baseline has drawn."""
    if prompts.pictures:
        return [open_picture(file) for file in prompts.pictures]
    return [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in baseline.all_pixels()]


def make_recipe(source: ModelSource, request: EvaluationRequest, call: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that pictures depend on, but for their row and prompts."""
    identity, device = identify(source).to_json(), pick_device(request.device)
    return {
        "model": {name: value for name, value in identity.items() if name != "model"},
        "components": hash_components(source),
        "call": dict(call),
        "seed": request.seed,
        "batch_size": request.batch_size,
        "dtype": str(pick_dtype(request.dtype, device)),
        "device": device,
        "versions": library_versions(),
    }


def hash_components(source: ModelSource) -> dict[str, str]:
    """SHA-256 of every file of a local pipeline but those of its transformer; none for one of the hub, by revision."""
    if source.revision is not None or source.pipeline is None:
        return {}
    folder = Path(source.pipeline)
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model")
    )
    kept = [path for path in files if path.relative_to(folder).parts[0] != "transformer"]
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in kept}
