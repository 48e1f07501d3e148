"""`surgery compile --to graph`: a variant as a folder, or as a program that needs torch alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.commands.output import bytes_text
from surgery.errors import RefusedError
from surgery.plan.planned import PlannedSource
from surgery.plan.planned_pair import PlannedPairSource, plan_model_file
from surgery.plan.windowed import WindowedPlan

if TYPE_CHECKING:
    from surgery.publish.artefact import Artefact

PROGRAM = "variant.pt2"


class Format(StrEnum):
    """What a graph is written as."""

    folder = "folder"
    pt2 = "pt2"


def compile_graph(
    spec: Path,
    out: Path,
    *,
    model: str | None,
    profile: Path | None,
    format: Format,  # noqa: A002  (the option is called --format)
    dtype: str | None,
    force: bool,
) -> "Artefact":
    """Write the folder of a variant; the arguments are the command's."""
    from surgery.outputs import refuse_folder
    from surgery.written import COMPILE

    refuse_folder(out, COMPILE, force=force)
    planned = plan_model_file(spec, model=model, profile=profile)
    first = planned.first if isinstance(planned, PlannedPairSource) else planned
    second = planned.second if isinstance(planned, PlannedPairSource) else None
    if format is Format.pt2 and second is not None:
        raise RefusedError(
            "a program (--format pt2) is of one transformer, and the spec edits two; leave --format out: the folder of "
            "a graph carries both"
        )
    if format is Format.pt2 and isinstance(planned.plan, WindowedPlan):
        raise RefusedError(
            "a program (--format pt2) runs the same layers in every step and branch, and the spec has windows (when); "
            "leave --format out: the folder of a graph carries them"
        )
    from surgery.publish.graph_folder import write_artefact

    return write_artefact(
        out,
        spec=replace(planned.spec, text=planned.text),
        source=first.source,
        anatomy=first.anatomy,
        plan=first.plan,
        means=first.means,
        second=second,
        force=force,
        write_more=program_writer(first, dtype) if format is Format.pt2 else None,
    )


def program_writer(planned: PlannedSource, dtype: str | None) -> Callable[[Path], Mapping[str, Any]]:
    """What writes the program into the folder of the artefact."""

    def write(folder: Path) -> Mapping[str, Any]:
        from surgery.graph.apply import apply
        from surgery.graph.program import export_program, save_program
        from surgery.pipelines.pretrained import load_pretrained

        stored = planned.source.weights_dtype or "auto"
        transformer = load_pretrained(planned.source, dtype=dtype or stored, device="cpu", transformer_only=True)
        program = export_program(apply(transformer, planned))
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
