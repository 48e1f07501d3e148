"""Variants of a model, measured: pictures from shared noise and text; scores beside baseline and three controls."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.anatomy.sources import ModelSource, anatomy_of_source
from surgery.errors import InputError, RefusedError
from surgery.experiment.averages import averaged_rows
from surgery.experiment.bench import Bench
from surgery.experiment.columns import Column, columns_of
from surgery.experiment.controls import AVERAGE, BASELINE, CONTROLS, NO_OP
from surgery.experiment.denoising_error import DenoisingErrors
from surgery.experiment.drawing import draw, draw_units
from surgery.experiment.engine_choice import EngineChoice, open_engine
from surgery.experiment.engines import SERIAL, Engine
from surgery.experiment.error_store import ErrorStore
from surgery.experiment.evaluated_row import EvaluatedRow
from surgery.experiment.judges import JudgeRequest, load_judges
from surgery.experiment.jury import Judges
from surgery.experiment.latency import Latency, latencies_of_rows
from surgery.experiment.marks import Marks, mark_rows
from surgery.experiment.measured_errors import measure_errors
from surgery.experiment.own_model_fit import other_parts, refuse_unfit
from surgery.experiment.picture_store import PictureStore
from surgery.experiment.prompts import PromptSet
from surgery.experiment.rows import (
    OwnModelRow,
    Row,
    Target,
    VariantRow,
    baseline_row,
    control_rows,
    rows_of_targets,
)
from surgery.experiment.run import Run, RunRequest, having_pipeline, open_run
from surgery.experiment.scores import Score, notes_on_number, score_row
from surgery.experiment.sights import Observed, has_room_for_window
from surgery.experiment.stages import Stage, checked_stages
from surgery.experiment.targets import is_spec_name, read_targets
from surgery.files import key_of_recipe
from surgery.graph.apply import Variants
from surgery.graph.shared_forward import DEFAULT_MEMORY
from surgery.metrics.intervals import mean_interval
from surgery.metrics.paired import SSIM_WINDOW_PX
from surgery.metrics.pictures import PictureSet
from surgery.pipelines.draw import OWN, Noise
from surgery.pipelines.learn import learn_unless_known
from surgery.pipelines.pretrained import check_device
from surgery.plan.named_files import hash_named_files
from surgery.plan.sweep import count_points, count_text
from surgery.spec.load import Spec, load_spec

STORE, PICTURES, ERRORS = "store", "pictures", "errors"
MAX_VARIANTS = 1_000  # where nothing else is said

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(RunRequest):
    """What to measure; see `surgery evaluate --help`. `specs` are specs, compiled folders and stock models."""

    specs: tuple[str, ...]
    prompts: PromptSet
    out: Path
    judges: JudgeRequest
    profile: Path | None = None
    bins: int = 10
    max_variants: int = MAX_VARIANTS
    stages: tuple[Stage, ...] = ()
    rank_by: str | None = None
    memory: int = DEFAULT_MEMORY
    engine: EngineChoice = field(default_factory=EngineChoice)
    latency: bool = False
    noise: Noise = "own"


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and how. `notes` are what a reader of the numbers should know."""

    rows: tuple[EvaluatedRow, ...]
    recipe: Mapping[str, Any]
    notes: tuple[str, ...]

    def row(self, name: str) -> EvaluatedRow:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def num_prompts(self) -> int:
        """How many pictures each row was measured on."""
        return len(self.recipe["prompts"])

    @property
    def has_stages(self) -> bool:
        """Whether rows have stopped at different stages."""
        return any(row.stage for row in self.rows)

    @property
    def pictures(self) -> dict[str, PictureSet]:
        """The pictures of each row that are still there."""
        return {row.name: row.pictures for row in self.rows if row.pictures is not None}

    def without_pictures(self) -> "Evaluation":
        """The same when the pictures are gone."""
        return replace(self, rows=tuple(replace(row, pictures=None) for row in self.rows))

    @cached_property
    def shown(self) -> tuple[EvaluatedRow, ...]:
        """The rows of the table: those that a sweep averages are one."""
        return averaged_rows(self.rows)

    @cached_property
    def marks(self) -> Marks:
        """What the table may say of the variants' numbers, by the row's name and the column's key."""
        return mark_rows(self.shown, self.columns)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What was measured, each metric under a head and a name of its own."""
        return columns_of(score.metric for row in self.rows for score in row.scores)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json` and `evaluation.json`."""
        averages = [self._row_to_json(row) for row in self.shown if row.kind == AVERAGE]
        return {
            "rows": [self._row_to_json(row) for row in self.rows],
            **({"averages": averages} if averages else {}),
            "notes": list(self.notes),
            "recipe": dict(self.recipe),
        }

    def _row_to_json(self, row: EvaluatedRow) -> dict[str, Any]:
        names = {column.key: column.name for column in self.columns}
        found: dict[str, Any] = {"name": row.name, "kind": row.kind}
        if row.spec is not None:
            found |= {"spec": row.spec.stem, "point": dict(row.spec.point)}
            if row.kind == AVERAGE:
                found["over"] = list(row.spec.average)
            if row.spec.cumulative is not None:
                found["cumulative"] = row.spec.cumulative.over
        if row.plan is not None:
            found["plan"] = row.plan.to_json()
        if row.planned is not None and row.kind != AVERAGE:
            found["spec_text"] = row.planned.text
        if row.own is not None:
            found["own_model"] = row.own.to_json()
        if row.cost is not None and row.kind != AVERAGE:
            found["cost"] = dataclasses.asdict(row.cost)
        if row.stage:
            found["stage"] = row.stage
        found["scores"] = {names[score.metric.key]: self._score_to_json(row, score) for score in row.scores}
        if row.errors is not None:
            found["denoising_error_by_bin"] = row.errors.mean(0).tolist()
            found["denoising_error_by_bin_interval"] = _intervals_by_bin(row.errors)
        return found

    def _score_to_json(self, row: EvaluatedRow, score: Score) -> dict[str, Any]:
        mark = self.marks.get((row.name, score.metric.key))
        head = next(column.head for column in self.columns if column.key == score.metric.key)
        return {**score.to_json(), "head": head, **({"mark": mark} if mark else {})}


def _intervals_by_bin(errors: Array) -> dict[str, Any]:
    """The intervals of the means over prompts (N, bins) -> plain data: the ends by bin, and what all of them share."""
    found = [mean_interval(values) for values in errors.T]
    ends = {"low": [one.low for one in found], "high": [one.high for one in found]}
    return {**ends, "num": found[0].num, "method": found[0].method, "level": found[0].level}


def key_of_request(request: EvaluationRequest) -> str:
    """The hash of all that an evaluation is asked for: results of another key are not its own.

    Raises:
        InputError: a spec can't be read.
        SpecError: a spec has faults.
    """
    specs = [_asked_of(target, request.profile) for target in request.specs]
    asked = {**dataclasses.asdict(request), "specs": specs}
    for name in ("out", "memory", "max_variants", "engine"):
        del asked[name]
    for name in ("stages", "rank_by", "latency"):  # keys of evaluations without them are what they were before
        if not asked[name]:
            del asked[name]
    if asked["noise"] == OWN:
        del asked["noise"]
    for name in ("bundled", "save_reference", "replace_reference"):
        del asked["judges"][name]
    return key_of_recipe(json.loads(json.dumps(asked, default=str)))


def _asked_of(target: str, profile: Path | None) -> list[Any]:
    """What is asked for by the name of a spec or a model: its text, and what is in the files that it names, or what
    tells its weights from others."""
    item = load_spec(target) if is_spec_name(target) else read_targets([target]).items[0]
    if not isinstance(item, Spec):
        return [target, dict(item.contents)]
    files = hash_named_files(item, profile=profile)
    return [target, item.text, *([files] if files else [])]


def run_evaluation(request: EvaluationRequest) -> Evaluation:
    """Draw and score all rows, stage by stage.

    What was drawn lies under a hash of its recipe in the target: a later run goes on.

    Raises:
        InputError: a spec, the model, a judge, a stage or an option is not usable.
        SpecError: a spec has faults.
        RefusedError: a spec can't be done on this model.
        WorkerError: the workers of the engine can't do their work.
    """
    device = check_device(request.device)
    with open_engine(request.engine, device) as engine:
        return _run_evaluation(request, device, engine)


def _run_evaluation(request: EvaluationRequest, device: str, engine: Engine) -> Evaluation:
    prompts = request.prompts.prompts
    stages = checked_stages(request.stages, len(prompts), request.rank_by)
    targets = read_targets(request.specs)
    source = having_pipeline(targets.find_base(request.model))
    refuse_too_many(targets.specs, source, request.max_variants)
    if request.stages and any(spec.average for spec in targets.specs):
        raise InputError("stages choose single variants, and average is over several; measure it without --stages")
    judges, notes = load_judges(request.judges, request.prompts, source.name, request.out / STORE, device=device)
    notes += notes_on_number(stages[-1].prompts, judges)
    run = open_run(source, request, prompts, noise=request.noise)
    learn_unless_known(run.pipe, run.call)
    for own in targets.own_models:
        refuse_unfit(own, run)
    recipe = run.recipe()
    rows = open_rows(run, targets.items, request, recipe)
    notes += notes_on_own_models(rows, run)
    bench = Bench(run, tuple(rows), prompts, request.memory)
    scored: dict[str, EvaluatedRow] = {}
    for number, stage in enumerate(stages):
        found = run_stage(bench, engine, rows, request, recipe, judges, stage, notes)
        scored |= {row.name: row for row in found}
        if number + 1 < len(stages):
            going_on = stage.choose(found, request.rank_by)
            rows = [row for row in rows if row.kind != "variant" or row.name in going_on]
    made_with = {**recipe, "prompts": list(prompts), "judges": judges.to_json()}
    if request.stages:
        made_with["stages"] = [stage.text for stage in stages]
    return Evaluation(tuple(scored.values()), made_with, tuple(notes))


def run_stage(
    bench: Bench,
    engine: Engine,
    rows: Sequence[Row],
    request: EvaluationRequest,
    recipe: Mapping[str, Any],
    judges: Judges,
    stage: Stage,
    notes: list[str],
) -> list[EvaluatedRow]:
    """What a stage measures of the rows that have come so far."""
    drawn = [row for row in rows if stage.draws or row.kind == "baseline"]
    pictures = draw_rows(drawn, bench, request, recipe, count=stage.prompts, engine=engine)
    errors: Mapping[str, DenoisingErrors] = {}
    if stage.measures_errors:
        try:
            store = ErrorStore(request.out / STORE / ERRORS, recipe, {row.name: row.recipe() for row in rows})
            given = bench, rows, pictures[BASELINE], request.prompts, store
            errors = measure_errors(*given, count=stage.prompts, bins=request.bins, engine=engine)
        except (InputError, RefusedError) as error:  # what was drawn is scored all the same
            if not stage.draws:
                raise
            notes.append(f"no denoising error: {error}")
    bench.let_go_but([])
    if not has_room_for_window(pictures[BASELINE]):
        notes.append(
            f"no SSIM: its window of {SSIM_WINDOW_PX} px does not fit into pictures of {pictures[BASELINE].size}"
        )
    if NO_OP in pictures:
        notes += [note for note in notes_on_controls(pictures) if note not in notes]
    latencies: Mapping[str, Latency] = {}
    if request.latency and stage.is_last:
        latencies = latencies_of_rows(rows, bench)
        notes.append(latencies[BASELINE].baseline_text)
    scored = []
    for row in rows:
        found = errors.get(row.name)
        observed = Observed(
            pictures.get(row.name),
            pictures[BASELINE],
            request.prompts.prompts[: stage.prompts],
            judges,
            None if found is None else (found, errors[BASELINE]),
            has_truth=bool(request.prompts.pictures),
            latency=latencies.get(row.name),
        )
        by_bin = None if found is None else found.to_baseline
        scores = tuple(score_row(observed, stage.sights))
        scored.append(
            EvaluatedRow(
                row.name,
                row.kind,
                pictures.get(row.name),
                scores,
                row.spec,
                row.plan,
                by_bin,
                stage=stage.text if request.stages else "",
                planned=row.planned if isinstance(row, VariantRow) and row.kind == "variant" else None,
                own=row.model if isinstance(row, OwnModelRow) else None,
                own_cost=row.cost if isinstance(row, OwnModelRow) else None,
            )
        )
    return scored


def refuse_too_many(specs: Sequence[Spec], source: ModelSource, most: int) -> None:
    """Raise InputError where sweeps stand for more variants than were asked for, before anything is drawn."""
    if all(spec.sweep is None for spec in specs):
        return
    anatomy = anatomy_of_source(source)
    numbers = {spec.address: count_points(spec, anatomy) for spec in specs}
    total = sum(numbers[spec.address] for spec in specs)
    if total > most:
        largest = max(numbers, key=numbers.__getitem__)
        where = "" if len(specs) == 1 else f", {count_text(numbers[largest])} of them in {largest}"
        told = f"the specs stand for {count_text(total)} variants{where}, over {most:,}"
        raise InputError(f"{told}; write smaller sweeps, name single points of them, or give --max-variants")


def open_rows(run: Run, targets: Sequence[Target], request: EvaluationRequest, recipe: Mapping[str, Any]) -> list[Row]:
    """All rows. The first pictures of the baseline are drawn before a spec is applied: what leaks into the original
    shows in the no-op.
    """
    baseline = baseline_row(run.pipe, request.seed)
    alone = Bench(run, (baseline,), request.prompts.prompts)
    first = draw_rows([baseline], alone, request, recipe, count=request.batch_size)[BASELINE]
    return list_rows(run.pipe, targets, request, first.size)


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


def notes_on_own_models(rows: Sequence[Row], run: Run) -> list[str]:
    """What a reader should know of models whose weights are not what their specs say, or with other parts beside."""
    notes: list[str | None] = []
    for row in rows:
        if isinstance(row, OwnModelRow):
            others = " and ".join(other_parts(row.model, run))
            notes.append(row.model.note(row.name))
            notes += [f"{row.name}: its own {others} are others; it is drawn with those of {run.source.name}"] * bool(
                others
            )
    return [note for note in notes if note is not None]


def list_rows(pipe: Any, targets: Sequence[Target], request: EvaluationRequest, size: tuple[int, int]) -> list[Row]:
    """The baseline, the variants, and the controls; `size` is that of the baseline's pictures."""
    taken = (BASELINE, *CONTROLS)
    variants = Variants(pipe)
    rows = rows_of_targets(variants, targets, request.seed, profile=request.profile, taken=taken)
    return [baseline_row(pipe, request.seed), *rows, *control_rows(variants, request.seed, size)]


def draw_rows(
    rows: Sequence[Row],
    bench: Bench,
    request: EvaluationRequest,
    recipe: Mapping[str, Any],
    *,
    count: int | None = None,
    engine: Engine = SERIAL,
) -> dict[str, PictureSet]:
    """The pictures of each row, or the first `count`; those that an earlier run has drawn are found again."""
    store = PictureStore(request.out / STORE / PICTURES)
    prompts = request.prompts.prompts
    num = len(prompts) if count is None else min(count, len(prompts))
    places = {row.name: store.open({**recipe, **row.recipe(), "prompts": list(prompts)}) for row in rows}
    units = draw_units(rows, num, bench.run)
    missing = [unit for unit in units if not places[unit.row].has(unit.numbers)]
    done = len(rows) * num - sum(unit.size for unit in missing)
    for unit, images in draw(bench, missing, done=done, engine=engine):
        places[unit.row].keep(unit.numbers, images)
    return {name: place.read(num) for name, place in places.items()}
