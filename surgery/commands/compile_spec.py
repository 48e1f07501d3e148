"""`surgery compile SPEC --to graph --out DIR`: a variant as a folder, or as a program that needs torch alone."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgery.commands.output import JsonFlag, bytes_text, print_json
from surgery.plan.planned import PlannedSpec, plan_spec_file
from surgery.errors import NotYetError

if TYPE_CHECKING:
    from surgery.graph.artefact import Artefact

PROGRAM = "variant.pt2"


class Target(StrEnum):
    """The backends."""

    graph = "graph"
    checkpoint = "checkpoint"


class Format(StrEnum):
    """What a graph is written as."""

    folder = "folder"
    pt2 = "pt2"


def run(
    spec: Annotated[Path, typer.Argument(help="The spec.")],
    to: Annotated[Target, typer.Option(help="The backend; this version has the graph.")],
    out: Annotated[Path, typer.Option(help="Folder for the artefact; it must be new or empty.")],
    format: Annotated[  # noqa: A002  (the option is called --format)
        Format,
        typer.Option(
            help="folder: spec, plan, readable forward, hashes of the base model, which it needs to run. "
            "pt2: with them a torch.export program with all weights, which runs with torch alone."
        ),
    ] = Format.folder,
    model: Annotated[str | None, typer.Option(help="The model, instead of the one that the spec names.")] = None,
    profile: Annotated[Path | None, typer.Option(help="File of means, instead of the spec's own.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of a pt2's weights: float32, bfloat16, float16; without it, as they are stored.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that is not empty.")] = False,
    json: JsonFlag = False,
) -> None:
    """Compile a spec to a folder that surgery.load_variant(DIR) turns into the running model.

    The weights of the base model are read to hash them (not for a model on the hub, which its revision names).
    """
    if to is Target.checkpoint:
        raise NotYetError("pruned checkpoints can't be written by this version yet; write --to graph")
    from surgery.files import refuse_target

    refuse_target(out, force=force)
    planned = plan_spec_file(spec, model=model, profile=profile)
    from surgery.graph.artefact import write_artefact

    artefact = write_artefact(
        out,
        spec=planned.spec,
        source=planned.source,
        anatomy=planned.anatomy,
        plan=planned.plan,
        means=planned.means,
        force=force,
        write_more=program_writer(planned, dtype) if format is Format.pt2 else None,
    )
    if json:
        print_json(artefact.manifest)
    else:
        typer.echo(describe_artefact(artefact))


def program_writer(planned: PlannedSpec, dtype: str | None) -> Callable[[Path], Mapping[str, Any]]:
    """What writes the program into the folder of the artefact."""

    def write(folder: Path) -> Mapping[str, Any]:
        from surgery.anatomy.pretrained import load_pretrained
        from surgery.graph.apply import apply
        from surgery.graph.program import export_program, save_program

        stored = planned.source.weights_dtype or "auto"
        transformer = load_pretrained(planned.source, dtype=dtype or stored, device="cpu", transformer_only=True)
        program = export_program(apply(transformer, planned.plan, profile=planned.means))
        texts = {name: (folder / name).read_text(encoding="utf-8") for name in ("spec.yaml", "plan.json")}
        save_program(program, folder / PROGRAM, texts)
        return {"program": program.to_json()}

    return write


def describe_artefact(artefact: "Artefact") -> str:
    """What was written, and how it is loaded."""
    folder = artefact.folder
    size = sum(path.stat().st_size for path in folder.iterdir())
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    base = artefact.base
    known = f"revision {base.revision}" if base.revision else f"hashes of {', '.join(base.weights)}"
    if base.revision is None and not base.weights:
        known = "its config alone, without weights: any weights for this config will be taken"
    lines = [f"{folder}: {names}; {bytes_text(size)}", f"base model {base.model}: {base.class_name}, {known}"]
    program = artefact.manifest.get("program")
    if program is None:
        return "\n".join([*lines, f'load it with surgery.load_variant("{folder}")'])
    for name, entry in program["inputs"].items():
        lines.append(f"  {name}: {entry['dtype']} ({', '.join(map(str, entry['shape']))})")
    lines += [f"  fixed: {name} {value}" for name, value in program["fixed"].items()]
    return "\n".join([*lines, f'load it with torch.export.load("{folder / PROGRAM}").module()'])
