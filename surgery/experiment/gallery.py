"""A model and its variants -> pictures from the same noise, with their recipes, and a contact sheet."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from surgery.anatomy.sources import ModelSource, find_source
from surgery.experiment.bench import Bench
from surgery.experiment.drawing import draw, draw_units
from surgery.experiment.folder_names import folder_names
from surgery.experiment.own_model import OwnModel
from surgery.experiment.own_model_fit import refuse_unfit
from surgery.experiment.rows import OwnModelRow, Row, Target, VariantRow, baseline_row, rows_of_targets
from surgery.experiment.run import Run, RunRequest, having_pipeline, library_versions, open_run
from surgery.experiment.targets import is_spec_name, read_targets
from surgery.graph.apply import Variants
from surgery.metrics.contact_sheet import Columns, sheet_of_variants
from surgery.metrics.pictures import png_of
from surgery.outputs import added_files, refuse_in_the_way
from surgery.pipelines.draw import SHARED, Drawing, Noise
from surgery.pipelines.learn import learn_unless_known
from surgery.pipelines.pretrained import pick_device, pick_dtype
from surgery.plan.changes import changes_text
from surgery.publish.artefact import read_compiled
from surgery.publish.manifest import kind_of_model
from surgery.text_table import table

COMMAND = "generate"
SHEET, RECIPE = "contact_sheet.png", "recipe.json"
RECIPE_KEY = "surgery"  # of the text chunk in each PNG


@dataclass(frozen=True, kw_only=True)
class TargetsRequest(RunRequest):
    """What is run: `targets` are specs and models of one base, or one model."""

    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GalleryRequest(TargetsRequest):
    """What to draw; see `surgery generate --help`."""

    prompts: tuple[str, ...]
    out: Path
    profile: Path | None = None
    baseline: bool = True
    columns: Columns = "prompts"
    noise: Noise = "own"
    force: bool = False


@dataclass(frozen=True)
class Gallery:
    """What was drawn and where it is."""

    model: str
    out: Path
    sheet: Path
    rows: tuple[Row, ...]
    recipe: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {"out": str(self.out), "contact_sheet": str(self.sheet), **self.recipe}

    def describe(self) -> str:
        """A line a row, and where to look."""
        rows = [[row.name, what_it_is(row)] for row in self.rows]
        return f"{table(rows, wrap={1})}\npictures in {self.out}/; look at {self.sheet}"


def draw_gallery(request: GalleryRequest) -> Gallery:
    """Draw every row of the gallery with the same prompts and noise, and write pictures, sheet and recipe.

    Raises:
        InputError: a target, an option, the model or the folder is not usable; nothing is left there then.
        SpecError: a spec has faults.
    """
    targets, source = find_targets(request)
    with added_files(request.out, COMMAND, force=request.force) as folder:
        run = open_run(source, request, request.prompts, noise=request.noise)
        learn_unless_known(run.pipe, run.call)
        for target in targets:
            if isinstance(target, OwnModel):
                refuse_unfit(target, run)
        rows = list_rows(targets, run.pipe, request)
        folders = folder_names([row.name for row in rows], taken=(SHEET, RECIPE))
        pictures = [picture_name(number) for number in range(len(request.prompts))]
        names = [f"{own}/{picture}" for own in folders.values() for picture in pictures]
        refuse_in_the_way(request.out, [*names, SHEET, RECIPE], COMMAND)
        recipe = make_recipe(run, rows, request)
        write_gallery(rows, draw_rows(rows, run, request), recipe, folder, folders, request.columns)
    return Gallery(source.name, request.out, request.out / SHEET, tuple(rows), recipe)


def find_targets(request: TargetsRequest) -> tuple[list[Target], ModelSource]:
    """What is drawn beside a model, and that model: the base of all; or nothing, and the one model that was given."""
    if len(request.targets) == 1 and request.model is None and not is_spec_name(request.targets[0]):
        alone = source_alone(request.targets[0])
        if alone is not None:
            return [], having_pipeline(alone)
    targets = read_targets(request.targets)
    return list(targets.items), having_pipeline(targets.find_base(request.model))


def source_alone(target: str) -> ModelSource | None:
    """A model that is drawn for itself; None of a graph, or a compiled transformer, which take the base's pipeline."""
    kind = kind_of_model(target)
    if kind == "graph":
        return None
    source = find_source(target) if kind is None else read_compiled(target).source()
    return source if kind is None or source.pipeline is not None else None


def list_rows(targets: Sequence[Target], pipe: Any, request: GalleryRequest) -> list[Row]:
    """The baseline, and a row for each spec and each model of its own."""
    rows: list[Row] = [baseline_row(pipe, request.seed)] if request.baseline or not targets else []
    taken = [row.name for row in rows]
    return [*rows, *rows_of_targets(Variants(pipe), targets, request.seed, profile=request.profile, taken=taken)]


def draw_rows(rows: Sequence[Row], run: Run, request: GalleryRequest) -> list[list[Drawing]]:
    """The pictures of each row."""
    found: dict[str, list[Drawing]] = {row.name: [] for row in rows}
    bench = Bench(run, tuple(rows), request.prompts)
    for unit, images in draw(bench, draw_units(rows, len(request.prompts), run)):
        for number, image in zip(unit.numbers, images, strict=True):
            seed = bench.row(unit.row).seed + (0 if request.noise == SHARED else number)
            found[unit.row].append(Drawing(image, request.prompts[number], seed))
    bench.let_go_but([])
    return [found[row.name] for row in rows]


def make_recipe(run: Run, rows: Sequence[Row], request: GalleryRequest) -> dict[str, Any]:
    """Everything that it takes to draw the pictures again, with the dtype and the device that were found."""
    device = pick_device(request.device)
    return {
        "model": run.source.name,
        "identity": run.identity(),
        "call": dict(run.call),
        "seed": request.seed,
        **({"noise": SHARED} if request.noise == SHARED else {}),
        "batch_size": request.batch_size,
        "dtype": str(pick_dtype(request.dtype, device)).removeprefix("torch."),
        "device": device,
        "prompts": list(request.prompts),
        "variants": [describe_row(row) for row in rows],
        "versions": library_versions(),
    }


def what_it_is(row: Row) -> str:
    """What tells a row from the others, in words."""
    if row.plan is not None:
        return changes_text(row.plan)
    if not isinstance(row, OwnModelRow):
        return "the model as it is"
    note = row.model.note("")
    return "a model of its own" if note is None else note.removeprefix(": ")


def describe_row(row: Row) -> dict[str, Any]:
    """What tells a row from the others, as plain data."""
    if isinstance(row, OwnModelRow):
        return {"name": row.name, "own_model": row.model.to_json()}
    if not isinstance(row, VariantRow):
        return {"name": row.name}
    return {"name": row.name, "spec": row.planned.text, "plan": row.planned.plan.to_json()}


def write_gallery(
    rows: Sequence[Row],
    pictures: Sequence[Sequence[Drawing]],
    recipe: Mapping[str, Any],
    out: Path,
    folders: Mapping[str, str],
    columns: Columns = "prompts",
) -> None:
    """Write the PNGs, each into the folder of its row, the contact sheet and `recipe.json`."""
    shared = {key: value for key, value in recipe.items() if key not in ("prompts", "variants", "seed")}
    for row, drawings, described in zip(rows, pictures, recipe["variants"], strict=True):
        (out / folders[row.name]).mkdir()
        for number, drawing in enumerate(drawings):
            own = {**shared, "variant": described, "prompt": drawing.prompt, "seed": drawing.seed}
            _write_png(drawing.image, out / folders[row.name] / picture_name(number), own)
    drawn = {row.name: [drawing.image for drawing in found] for row, found in zip(rows, pictures, strict=True)}
    sheet = sheet_of_variants(drawn, recipe["prompts"], columns)
    _write_png(sheet, out / SHEET, recipe)
    (out / RECIPE).write_text(json.dumps(recipe, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def picture_name(number: int) -> str:
    """The file of the picture of a prompt."""
    return f"{number:04d}.png"


def _write_png(image: Any, path: Path, recipe: Mapping[str, Any]) -> None:
    metadata = PngInfo()
    metadata.add_text(RECIPE_KEY, json.dumps(recipe))
    path.write_bytes(png_of(image, metadata))
