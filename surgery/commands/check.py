"""`surgery check SPEC...`: validate specs; show what they do, what that saves, and what can express it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from surgery.commands.checked_folder import check_folder
from surgery.commands.output import JsonFlag, print_json, say
from surgery.commands.planned_text import Show, Shown, describe_planned
from surgery.commands.spec_options import POINT_HELP, MeansOption, ModelOption
from surgery.commands.swept_text import describe_sweep, quoted_address
from surgery.errors import InputError, NotYetError, SurgeryError
from surgery.plan.planned import Finder, find_once
from surgery.plan.planned_pair import plan_model_sweep_file
from surgery.publish.artefact import read_compiled
from surgery.publish.manifest import SPEC, kind_of_folder
from surgery.publish.planned_folder import is_model_folder, refuse_without_recipe
from surgery.spec.load import load_spec, name_of_path
from surgery.spec.spec_name import SUFFIXES, name_of_point, parse_spec_name


def run(
    specs: Annotated[
        list[Path],
        typer.Argument(
            help=f"Specs, folders of specs (*.yaml, *.yml), or compiled folders, by their recipes; {POINT_HELP}."
        ),
    ],
    model: ModelOption = None,
    profile: MeansOption = None,
    show: Annotated[
        Show | None,
        typer.Option(
            help="The plan; the graph of blocks, drawn; the code of the rewritten forward; or the model's anatomy. "
            "Without it: the plan of one spec, a line for each of several."
        ),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the graph of blocks of one spec to this SVG file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an SVG file that is there.")] = False,
    language_only: Annotated[
        bool, typer.Option("--language-only", help="Check the language alone; the models need not be there.")
    ] = False,
    points: Annotated[
        bool, typer.Option("--points", help="List the points of a sweep by name, what each runs, and what it saves.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of a spec with windows, or two transformers: what runs in so many steps of the model's own sampler.",
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Check specs against their models and show what they do, what that saves, and which backends can express it.

    No weights are read, but those of a compiled folder: whether they are still what was compiled. Exit status 1 if a
    spec has a fault; the faults are on standard error.
    """
    paths = find_specs(specs)
    is_single = len(paths) == 1 and paths[0] == specs[0]
    if svg is not None and not is_single:
        raise InputError("--svg draws one spec; give a single spec")
    documents: list[dict[str, Any]] = []
    find = find_once()
    num_faulty = 0
    for number, path in enumerate(paths):
        try:
            if language_only:
                document, text = check_language(path)
            else:
                wanted = show or (Show.plan if is_single else None)
                options = Shown(wanted, svg, steps, points=points, force=force)
                document, text = check_against_model(path, options, model=model, profile=profile, find=find)
        except SurgeryError as error:
            num_faulty += 1
            name = name_of_path(path)
            text = str(error) if parse_spec_name(path).file in str(error) else f"{name}: {error}"
            say(text, err=True)
            documents.append({"spec": name, "faults": text.splitlines()})
            continue
        documents.append(document)
        if not json:
            say(("\n" if number and show is not None else "") + text)
    if json:
        print_json(documents[0] if is_single else documents)
    elif not is_single:
        say(f"{len(paths)} specs, {num_faulty or 'none'} with faults")
    if num_faulty:
        raise typer.Exit(1)


def find_specs(given: Sequence[Path]) -> list[Path]:
    """The files, the compiled folders, and all YAML files in and below other folders, in the order of their names; each
    once.

    Raises:
        InputError: a folder holds no YAML file, or is a model without a recipe.
    """
    found: list[Path] = []
    for path in given:
        if not path.is_dir() or kind_of_folder(path) is not None:
            found.append(path)
            continue
        inside = [file for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES and file.is_file()]
        inside = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not inside:
            if is_model_folder(path):
                refuse_without_recipe(path)
            raise InputError(f"the folder {path} holds no spec; a spec is a file named *.yaml or *.yml")
        found += inside
    return list(dict.fromkeys(found))


def check_language(path: Path) -> tuple[dict[str, Any], str]:
    """The JSON document and the text of a spec that is valid as far as the language goes; raises what is wrong."""
    spec = load_spec(path / SPEC if path.is_dir() else path)
    file = spec.file if spec.named is None else name_of_point(spec.file, spec.named)
    return {"spec": file}, f"{file}: valid language; not checked against a model"


def check_against_model(
    path: Path, shown: Shown, *, model: str | None, profile: Path | None, find: Finder
) -> tuple[dict[str, Any], str]:
    """The JSON document and the text of a valid spec; raises what is wrong. What can't run yet is valid, and said."""
    if path.is_dir():
        return check_folder(read_compiled(path), shown, model=model)
    try:
        variants = plan_model_sweep_file(path, model=model, profile=profile, find=find)
    except NotYetError as reason:
        return {"spec": name_of_path(path), "not_yet": str(reason).splitlines()}, str(reason)
    planned = variants[0]
    if planned.spec.point and planned.spec.named is None:
        if shown.svg is not None or shown.show not in (None, Show.plan):
            option = "--svg" if shown.svg is not None else f"--show {shown.show}"
            fact = f"{option} is of one spec; {path} is a sweep of {len(variants)} variants"
            raise InputError(f"{fact}: name one, like {quoted_address(planned.spec)}")
        return describe_sweep(variants, shown)
    return describe_planned(planned, shown)
