"""A model and its variants -> pictures from the same noise, with their recipes, and a contact sheet."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from surgery.anatomy.sources import ModelSource
from surgery.errors import InputError
from surgery.experiment.bench import Bench
from surgery.experiment.drawing import draw, draw_units
from surgery.experiment.folder_names import folder_names
from surgery.experiment.rows import Row, VariantRow, baseline_row, variant_rows
from surgery.experiment.run import (
    Run,
    RunRequest,
    having_pipeline,
    library_versions,
    model_of_specs,
    open_run,
    source_with_pipeline,
)
from surgery.graph.apply import Variants
from surgery.metrics.contact_sheet import Columns, sheet_of_variants
from surgery.metrics.pictures import png_of
from surgery.outputs import added_files, refuse_in_the_way
from surgery.pipelines.draw import Drawing
from surgery.pipelines.learn import learn_unless_known
from surgery.pipelines.pretrained import pick_device, pick_dtype
from surgery.plan.changes import changes_text
from surgery.publish.graph_folder import Artefact, find_base, is_artefact, read_artefact
from surgery.publish.manifest import SPEC
from surgery.spec.load import Spec, load_spec
from surgery.spec.spec_name import STANDARD_INPUT, SUFFIXES, parse_spec_name
from surgery.text_table import table

COMMAND = "generate"
SHEET, RECIPE = "contact_sheet.png", "recipe.json"
RECIPE_KEY = "surgery"  # of the text chunk in each PNG


@dataclass(frozen=True, kw_only=True)
class TargetsRequest(RunRequest):
    """What is run: `targets` are specs or compiled folders of one model, or the name of one model."""

    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GalleryRequest(TargetsRequest):
    """What to draw; see `surgery generate --help`."""

    prompts: tuple[str, ...]
    out: Path
    profile: Path | None = None
    baseline: bool = True
    columns: Columns = "prompts"
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
        rows = [[row.name, "the model as it is" if row.plan is None else changes_text(row.plan)] for row in self.rows]
        return f"{table(rows, wrap={1})}\npictures in {self.out}/; look at {self.sheet}"


def draw_gallery(request: GalleryRequest) -> Gallery:
    """Draw every row of the gallery with the same prompts and noise, and write pictures, sheet and recipe.

    Raises:
        InputError: a target, an option, the model or the folder is not usable; nothing is left there then.
        SpecError: a spec has faults.
    """
    specs, source = find_targets(request)
    with added_files(request.out, COMMAND, force=request.force) as folder:
        run = open_run(source, request, request.prompts)
        learn_unless_known(run.pipe, run.call)
        rows = list_rows(specs, run.pipe, request)
        folders = folder_names([row.name for row in rows], taken=(SHEET, RECIPE))
        pictures = [picture_name(number) for number in range(len(request.prompts))]
        names = [f"{own}/{picture}" for own in folders.values() for picture in pictures]
        refuse_in_the_way(request.out, [*names, SHEET, RECIPE], COMMAND)
        recipe = make_recipe(run, rows, request)
        write_gallery(rows, draw_rows(rows, run, request), recipe, folder, folders, request.columns)
    return Gallery(source.name, request.out, request.out / SHEET, tuple(rows), recipe)


def find_targets(request: TargetsRequest) -> tuple[list[Spec], ModelSource]:
    """The specs, and the one model that they are for."""
    paths = [target for target in request.targets if is_spec_name(target) or is_artefact(Path(target))]
    if paths and len(paths) < len(request.targets):
        raise InputError("the targets are specs and models; give specs (*.yaml) of one model, or one model")
    if not paths:
        if len(request.targets) > 1:
            raise InputError(f"there are {len(request.targets)} models; give one, or specs (*.yaml) of one model")
        return [], source_with_pipeline(request.targets[0])
    artefacts = {path: read_artefact(Path(path)) for path in paths if not is_spec_name(path)}
    specs = [spec_of_artefact(artefacts[path]) if path in artefacts else load_spec(path) for path in paths]
    name = model_of_specs(specs, request.model)
    bases = {base.revision: base for base in (find_base(each, request.model) for each in artefacts.values())}
    if len(bases) > 1:
        shown = ", ".join(sorted(str(revision) for revision in bases))
        raise InputError(f"the folders are for {name} at the revisions {shown}; draw them one by one")
    return specs, having_pipeline(next(iter(bases.values()))) if bases else source_with_pipeline(name)


def is_spec_name(target: str) -> bool:
    """Whether a target is a spec by its name, or on standard input."""
    name = parse_spec_name(target)
    return name.path == STANDARD_INPUT or Path(name.path).suffix in SUFFIXES


def spec_of_artefact(artefact: Artefact) -> Spec:
    """The spec of a compiled variant, for its base model, with its means."""
    spec = load_spec(artefact.folder / SPEC)
    profile = None if artefact.means is None else artefact.means.name
    return replace(spec, file=str(artefact.folder), model=artefact.base.model, profile=profile)


def list_rows(specs: Sequence[Spec], pipe: Any, request: GalleryRequest) -> list[Row]:
    """The baseline and a row a spec."""
    rows: list[Row] = [baseline_row(pipe, request.seed)] if request.baseline or not specs else []
    taken = [row.name for row in rows]
    return [*rows, *variant_rows(Variants(pipe), specs, request.seed, profile=request.profile, taken=taken)]


def draw_rows(rows: Sequence[Row], run: Run, request: GalleryRequest) -> list[list[Drawing]]:
    """The pictures of each row."""
    found: dict[str, list[Drawing]] = {row.name: [] for row in rows}
    bench = Bench(run, tuple(rows), request.prompts)
    for unit, images in draw(bench, draw_units(rows, len(request.prompts), request.batch_size)):
        for number, image in zip(unit.numbers, images, strict=True):
            found[unit.row].append(Drawing(image, request.prompts[number], bench.row(unit.row).seed + number))
    return [found[row.name] for row in rows]


def make_recipe(run: Run, rows: Sequence[Row], request: GalleryRequest) -> dict[str, Any]:
    """Everything that it takes to draw the pictures again, with the dtype and the device that were found."""
    device = pick_device(request.device)
    return {
        "model": run.source.name,
        "identity": run.identity(),
        "call": dict(run.call),
        "seed": request.seed,
        "batch_size": request.batch_size,
        "dtype": str(pick_dtype(request.dtype, device)).removeprefix("torch."),
        "device": device,
        "prompts": list(request.prompts),
        "variants": [describe_row(row) for row in rows],
        "versions": library_versions(),
    }


def describe_row(row: Row) -> dict[str, Any]:
    """What tells a row from the others, as plain data."""
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
