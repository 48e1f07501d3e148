"""`surgery compile SPEC --to graph|checkpoint --out DIR`: a variant as a folder, or a pruned model."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from surgery.checkpoint.byte_plan import DEFAULT_SHARD_SIZE
from surgery.commands.card import read_evaluation
from surgery.commands.compiled_checkpoint import (
    describe_pruned,
    describe_seconds,
    pruned_to_json,
    show_bytes,
)
from surgery.commands.compiled_graph import Format, compile_graph, describe_artefact
from surgery.commands.output import JsonFlag, QuietFlag, print_json, say
from surgery.commands.spec_options import POINT_HELP, MeansOption, ModelOption
from surgery.errors import InputError
from surgery.plan.planned_pair import AnyPlannedSource, plan_model_file
from surgery.progress import quietly
from surgery.publish.pruned_model import CompileOptions, compile_planned


class Backend(StrEnum):
    """The backends."""

    graph = "graph"
    checkpoint = "checkpoint"


class Check(StrEnum):
    """How far a checkpoint is verified."""

    none = "none"
    structure = "structure"
    numeric = "numeric"
    full = "full"


GRAPH, CHECKPOINT = "For --to graph", "For --to checkpoint"


def run(
    context: typer.Context,
    spec: Annotated[Path, typer.Argument(help=f"The spec; {POINT_HELP}.")],
    to: Annotated[
        Backend,
        typer.Option(
            help="graph: the rewritten forward, on the weights of the base model. checkpoint: a pruned model with "
            "weights of its own, which stock diffusers loads."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; it must be new or empty.")],
    model: ModelOption = None,
    profile: MeansOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that is not empty.")] = False,
    format: Annotated[  # noqa: A002  (the option is called --format)
        Format,
        typer.Option(
            help="folder: spec, plan, readable forward, hashes of the base model, which it needs to run. "
            "pt2: with them a torch.export program with all weights, which runs with torch alone.",
            rich_help_panel=GRAPH,
        ),
    ] = Format.folder,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of a pt2's weights: float32, bfloat16, float16; without it, as they are stored.",
            rich_help_panel=GRAPH,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be copied, changed and dropped; write nothing.",
            rich_help_panel=CHECKPOINT,
        ),
    ] = False,
    verify: Annotated[
        Check,
        typer.Option(
            help="structure: the written files fit the stock class, and its forward does not go by the numbers of "
            "blocks, as far as is known without a run. numeric: and graph and checkpoint agree on a shrunken model of "
            "the class. full: they agree on the real weights (both are loaded whole). none: the files fit; what the "
            "forward makes of them is not asked.",
            rich_help_panel=CHECKPOINT,
        ),
    ] = Check.numeric,
    max_shard_size: Annotated[
        str, typer.Option(help="Of a file of weights: 10GB, 500MB, 2GiB.", rich_help_panel=CHECKPOINT)
    ] = DEFAULT_SHARD_SIZE,
    transformer_only: Annotated[
        bool,
        typer.Option("--transformer-only", help="Leave the rest of a pipeline behind.", rich_help_panel=CHECKPOINT),
    ] = False,
    copies: Annotated[
        bool,
        typer.Option(
            "--copy",
            help="Copy the rest of a pipeline, instead of hard links to large files.",
            rich_help_panel=CHECKPOINT,
        ),
    ] = False,
    variant: Annotated[
        str | None, typer.Option(help="Of the files, as diffusers names them: fp16.", rich_help_panel=CHECKPOINT)
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="A finished evaluation of the spec: its numbers go into the model card.",
            rich_help_panel=CHECKPOINT,
        ),
    ] = None,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> None:
    """Compile a spec to a running variant (graph), or to a pruned model that stock diffusers loads (checkpoint).

    Weights of a model in a folder are read to hash them (one on the hub is known by its revision).
    """
    refuse_other_options(context, to)
    if to is Backend.graph:
        with quietly(quiet):
            artefact = compile_graph(spec, out, model=model, profile=profile, format=format, dtype=dtype, force=force)
        print_json(artefact.manifest) if json else say(describe_artefact(artefact))
        return
    options = CompileOptions(
        verify=verify.value,
        max_shard_size=max_shard_size,
        transformer_only=transformer_only,
        copies=copies,
        variant=variant,
        force=force,
        dry_run=dry_run,
    )
    planned = plan_model_file(spec, model=model, profile=profile)
    measured = None if evaluation is None else _section_of(planned, evaluation)
    with quietly(quiet), show_bytes() as progress:
        pruned = compile_planned(planned, out, options, progress=progress, measured=measured)
    if json:
        print_json(pruned_to_json(pruned))
    else:
        say(describe_pruned(pruned, dry_run=dry_run))
        say(describe_seconds(pruned), err=True)


def _section_of(planned: AnyPlannedSource, evaluation: Path) -> str:
    """What a model card says of the spec's row in an evaluation.

    Raises:
        InputError: the evaluation has no row of this plan on this base.
    """
    from surgery.anatomy.identity import identify
    from surgery.report.measured_folder import no_row_text, rows_of_plan, section_of_row

    measured = read_evaluation(evaluation)
    rows = rows_of_plan(measured, planned.plan.hash, identify(planned.source))
    if not rows:
        raise InputError(no_row_text(measured, planned.spec.address))
    return section_of_row(measured, rows[0])


def refuse_other_options(context: typer.Context, to: Backend) -> None:
    """Raise InputError where an option was given that is for the other backend."""
    other = CHECKPOINT if to is Backend.graph else GRAPH
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        is_given = source is not None and source.name == "COMMANDLINE"
        if is_given and getattr(parameter, "rich_help_panel", None) == other:
            raise InputError(f"{parameter.opts[-1]} is {other.lower()}, and this is --to {to.value}; leave it out")
