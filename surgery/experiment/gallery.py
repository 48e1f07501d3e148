"""A model and its variants -> pictures from the same noise, with their recipes, and a contact sheet."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.sources import ModelSource, find_source
from surgery.bundled import DEMO_CALL, DEMO_NAME
from surgery.errors import InputError
from surgery.experiment.variants import folder_name, library_versions, means_file, plan_variants
from surgery.graph.apply import apply
from surgery.graph.artefact import SPEC, find_base, is_artefact, read_artefact
from surgery.metrics.contact_sheet import contact_sheet
from surgery.pipelines.draw import Drawing, check_call, draw_pictures
from surgery.pipelines.pretrained import load_pretrained
from surgery.plan.plan import Plan
from surgery.progress import Meter, show_progress
from surgery.spec.load import Spec, load_spec
from surgery.text_table import table

SPEC_SUFFIXES = (".yaml", ".yml")
RECIPE_KEY = "surgery"  # of the text chunk in each PNG
BASELINE = "baseline"


@dataclass(frozen=True)
class GalleryRequest:
    """What to draw. `targets` are specs of one model, or the name of one model; see `surgery generate --help`."""

    targets: tuple[str, ...]
    prompts: tuple[str, ...]
    out: Path
    model: str | None = None
    profile: Path | None = None
    seed: int = 0
    batch_size: int = 8
    dtype: str = "auto"
    device: str = "auto"
    call: Mapping[str, Any] = field(default_factory=dict)
    baseline: bool = True
    force: bool = False


@dataclass(frozen=True)
class Row:
    """One row of the gallery: the unedited model (no spec), or a variant."""

    name: str
    spec: Spec | None = None
    plan: Plan | None = None


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
        rows = [
            [row.name, "the model as it is" if row.plan is None else _schedules_text(row.plan)] for row in self.rows
        ]
        return f"{table(rows, wrap={1})}\npictures in {self.out}/; look at {self.sheet}"


def _schedules_text(plan: Plan) -> str:
    changed = plan.text.splitlines()[1:]
    stacks = [line for line, s in zip(changed, plan.schedules, strict=False) if not s.is_identity]
    return "; ".join([*stacks, *changed[len(plan.schedules) :]]) or "unchanged"


def draw_gallery(request: GalleryRequest) -> Gallery:
    """Draw every row of the gallery with the same prompts and noise, and write pictures, sheet and recipe.

    Raises:
        InputError: a target, an option, the model or the folder is not usable; nothing has been written then.
        SpecError: a spec has faults.
    """
    specs, source = find_targets(request)
    check_folder(request)
    call = {**(DEMO_CALL if source.name == DEMO_NAME else {}), **request.call}
    pipe = load_pipeline(source, request)
    check_call(pipe, call)
    rows = plan_rows(specs, pipe, request)
    variants = [pipe if row.plan is None else apply(pipe, row.plan, profile=_profile(row, request)) for row in rows]
    pictures = draw_rows(variants, rows, request, call)
    recipe = make_recipe(source, rows, request, call)
    sheet = write_gallery(rows, pictures, recipe, request.out)
    return Gallery(source.name, request.out, sheet, tuple(rows), recipe)


def find_targets(request: GalleryRequest) -> tuple[list[Spec], ModelSource]:
    """The specs, and the one model that they are for."""
    paths = [target for target in request.targets if Path(target).suffix in SPEC_SUFFIXES or is_artefact(Path(target))]
    if paths and len(paths) < len(request.targets):
        raise InputError("the targets are specs and models; give specs (*.yaml) of one model, or one model")
    if not paths:
        if len(request.targets) > 1:
            raise InputError(f"there are {len(request.targets)} models; give one, or specs (*.yaml) of one model")
        return [], _with_pipeline(find_source(request.targets[0]))
    specs = [load_spec(path) if Path(path).suffix in SPEC_SUFFIXES else spec_of_artefact(Path(path)) for path in paths]
    names = {request.model or spec.model for spec in specs}
    if None in names or len(names) != 1:
        shown = ", ".join(sorted(str(name) for name in names))
        raise InputError(f"the specs name not one model but {shown}; give --model")
    return specs, _with_pipeline(find_source(str(names.pop())))


def spec_of_artefact(folder: Path) -> Spec:
    """The spec of a compiled variant, for its base model, which is compared with what was recorded, and its means."""
    artefact = read_artefact(folder)
    find_base(artefact)
    spec = load_spec(folder / SPEC)
    profile = None if artefact.means is None else artefact.means.name
    return replace(spec, file=str(folder), model=artefact.base.model, profile=profile)


def _with_pipeline(source: ModelSource) -> ModelSource:
    if source.pipeline is None:
        raise InputError(f"{source.name} is a bare transformer; to draw pictures, give the folder of its pipeline")
    return source


def check_folder(request: GalleryRequest) -> None:
    """Raise InputError where writing would hurt what is there."""
    out = request.out
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not request.force:
        raise InputError(f"{out} is not empty; give another folder, or --force to write into it")
    above = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"the folder {out} can't be made: {above} is no folder that can be written to")


def load_pipeline(source: ModelSource, request: GalleryRequest) -> Any:
    """The stock pipeline on the wanted device and dtype."""
    pipe = load_pretrained(source, dtype=request.dtype, device=request.device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def plan_rows(specs: Sequence[Spec], pipe: Any, request: GalleryRequest) -> list[Row]:
    """The baseline and a row a spec, each with its plan."""
    rows = [Row(BASELINE)] if request.baseline or not specs else []
    taken = [row.name for row in rows]
    variants = plan_variants(specs, read_anatomy(pipe.transformer), request.profile, taken=taken)
    return rows + [Row(variant.name, variant.spec, variant.plan) for variant in variants]


def _profile(row: Row, request: GalleryRequest) -> Path | None:
    """The file of means of a row, where its plan uses one."""
    return request.profile if row.spec is None else means_file(row.spec, request.profile)


def draw_rows(
    variants: Sequence[Any], rows: Sequence[Row], request: GalleryRequest, call: Mapping[str, Any]
) -> list[list[Drawing]]:
    """The pictures of each row, with their progress on standard error."""
    found = []
    total = len(rows) * len(request.prompts)
    with show_progress(total, unit="picture", label="drawing") as meter:
        for variant, row in zip(variants, rows, strict=True):
            with _steps_noted(variant, meter, row.name):
                found.append(
                    draw_pictures(
                        variant,
                        request.prompts,
                        seed=request.seed,
                        batch_size=request.batch_size,
                        call=call,
                        on_batch=meter.advance,
                    )
                )
    return found


@contextlib.contextmanager
def _steps_noted(pipe: Any, meter: Meter, name: str) -> Iterator[None]:
    """Count the transformer's forwards for the meter, so that long pictures show life."""
    forwards = 0

    def count(module: Any, args: Any, output: Any) -> None:  # noqa: ARG001  (torch's signature)
        nonlocal forwards
        forwards += 1
        meter.note(f"{name}, step {forwards}")

    handle = pipe.transformer.register_forward_hook(count)
    try:
        yield
    finally:
        handle.remove()


def make_recipe(
    source: ModelSource, rows: Sequence[Row], request: GalleryRequest, call: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that it takes to draw the pictures again."""
    return {
        "model": source.name,
        "call": dict(call),
        "seed": request.seed,
        "batch_size": request.batch_size,
        "dtype": request.dtype,
        "device": request.device,
        "prompts": list(request.prompts),
        "variants": [
            {"name": row.name}
            if row.spec is None or row.plan is None
            else {"name": row.name, "spec": row.spec.text, "plan": row.plan.to_json()}
            for row in rows
        ],
        "versions": library_versions(),
    }


def write_gallery(
    rows: Sequence[Row], pictures: Sequence[Sequence[Drawing]], recipe: Mapping[str, Any], out: Path
) -> Path:
    """Write the PNGs, the contact sheet and `recipe.json`, each beside and renamed; returns the sheet's path."""
    shared = {key: value for key, value in recipe.items() if key not in ("prompts", "variants", "seed")}
    for row, drawings, described in zip(rows, pictures, recipe["variants"], strict=True):
        folder = out / folder_name(row.name)
        folder.mkdir(parents=True, exist_ok=True)
        for number, drawing in enumerate(drawings):
            own = {**shared, "variant": described, "prompt": drawing.prompt, "seed": drawing.seed}
            _write_png(drawing.image, folder / f"{number:04d}.png", own)
    sheet = contact_sheet(
        [[drawing.image for drawing in drawings] for drawings in pictures],
        row_names=[row.name for row in rows],
        column_names=recipe["prompts"],
    )
    path = out / "contact_sheet.png"
    _write_png(sheet, path, recipe)
    beside = out / "recipe.json.partial"
    beside.write_text(json.dumps(recipe, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(out / "recipe.json")
    return path


def _write_png(image: Any, path: Path, recipe: Mapping[str, Any]) -> None:
    metadata = PngInfo()
    metadata.add_text(RECIPE_KEY, json.dumps(recipe))
    beside = path.with_suffix(".png.partial")
    image.save(beside, format="PNG", pnginfo=metadata)
    beside.replace(path)
