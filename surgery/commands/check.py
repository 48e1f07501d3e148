"""`surgery check SPEC...`: validate specs, show what they do to their model and what that saves."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgery.anatomy.parts import Anatomy
from surgery.commands.inspection import describe_anatomy, ranges_text
from surgery.commands.output import JsonFlag, bytes_text, count_text, print_json, share_text, table
from surgery.errors import InputError, SurgeryError
from surgery.plan.cost import Cost, plan_cost
from surgery.plan.lower import MeanValues, lower_spec
from surgery.plan.plan import Plan
from surgery.plan.text import items_to_text
from surgery.spec.load import Spec, load_spec

if TYPE_CHECKING:
    from surgery.profiles.means import MeansFile


class Show(StrEnum):
    """What `check` prints of a valid spec."""

    plan = "plan"
    anatomy = "anatomy"
    graph = "graph"


def run(
    specs: Annotated[list[Path], typer.Argument(help="Specs to check.")],
    model: Annotated[str | None, typer.Option(help="The model, instead of the one that the spec names.")] = None,
    profile: Annotated[Path | None, typer.Option(help="File of means, instead of the spec's own.")] = None,
    show: Annotated[Show, typer.Option(help="The plan, the model's anatomy, or the rewritten graph.")] = Show.plan,
    json: JsonFlag = False,
) -> None:
    """Check specs against their models and show each plan: schedules, replacements, savings. No weights are read."""
    documents: list[dict[str, Any]] = []
    failed = False
    for number, path in enumerate(specs):
        try:
            document, text = check_spec(path, model=model, profile=profile, show=show)
        except SurgeryError as error:
            failed = True
            typer.echo(str(error), err=True)
            documents.append({"spec": str(path), "faults": str(error).splitlines()})
            continue
        documents.append(document)
        if not json:
            typer.echo(("\n" if number else "") + text)
    if json:
        print_json(documents[0] if len(specs) == 1 else documents)
    if failed:
        raise typer.Exit(1)


def check_spec(path: Path, *, model: str | None, profile: Path | None, show: Show) -> tuple[dict[str, Any], str]:
    """The JSON document and the text of one valid spec; raises what is wrong with it."""
    from surgery.anatomy.sources import anatomy_of_source, build_on_meta, find_source
    from surgery.profiles.means import means_for_spec

    spec = load_spec(path)
    source = find_source(model_of_spec(spec, model))
    anatomy = anatomy_of_source(source)
    means = means_for_spec(spec, profile)
    plan = lower_spec(spec, anatomy, None if means is None else MeanValues(means.digest, means.widths))
    cost = plan_cost(plan, anatomy)
    document = {"spec": str(path), "model": source.name, "plan": plan.to_json(), "cost": cost_to_json(cost)}
    match show:
        case Show.plan:
            return document, describe_plan(spec, source.name, plan, anatomy, cost)
        case Show.anatomy:
            return document, describe_anatomy(source.name, anatomy)
        case Show.graph:
            source_text = graph_source(build_on_meta(source), plan, anatomy, means)
            return {**document, "graph": source_text}, source_text


def model_of_spec(spec: Spec, override: str | None) -> str:
    """The model to work on; raises InputError where neither the spec nor the call names one."""
    name = override or spec.model
    if name is None:
        raise InputError(f"{spec.file} names no model; write model: in the spec, or give --model")
    return name


def graph_source(model: Any, plan: Plan, anatomy: Anatomy, means: "MeansFile | None" = None) -> str:
    """The Python code of the rewritten forward, traced on the example inputs of the model's class."""
    from surgery.graph.apply import tensors_of_means
    from surgery.graph.variant import build_variant, source_of_variant

    return source_of_variant(build_variant(model, plan, anatomy, None if means is None else tensors_of_means(means)))


def cost_to_json(cost: Cost) -> dict[str, Any]:
    """Plain data of what a plan saves."""
    return {
        "parameters": {"before": cost.parameters_before, "after": cost.parameters_after},
        "bytes": {"before": cost.bytes_before, "after": cost.bytes_after},
        "block_flops_share": cost.flops_share,
    }


def describe_plan(spec: Spec, model: str, plan: Plan, anatomy: Anatomy, cost: Cost) -> str:
    """What a spec does, to be read: a line a stack, a line a replacement, and what is saved."""
    lines = [f"{spec.file}: {spec.title or 'valid'}", f"{model}: {plan.class_name}, plan {plan.hash[:12]}"]
    rows = []
    for schedule in plan.schedules:
        gone = f"without {ranges_text(list(schedule.removed))}" if schedule.removed else ""
        note = "unchanged" if schedule.is_identity else gone
        rows.append([f"{schedule.stack}[{schedule.num_blocks}]", items_to_text(schedule.items), note])
    lines.append(table(rows, indent="  "))
    lines += [f"  {item.stack}[{item.index}].{item.component} = {item.kind}" for item in plan.replacements]
    lines.append(f"  {describe_cost(cost, anatomy)}")
    return "\n".join(lines)


def describe_cost(cost: Cost, anatomy: Anatomy) -> str:
    """Parameters, bytes and FLOPs, before and after."""
    saved = cost.parameters_before - cost.parameters_after
    saved_bytes = cost.bytes_before - cost.bytes_after
    at = "" if anatomy.has_weights else f" as {anatomy.dtype}"
    text = (
        f"saves {count_text(saved)} of {count_text(cost.parameters_before)} parameters "
        f"({share_text(saved, cost.parameters_before)}), {bytes_text(saved_bytes)}{at}"
    )
    share = cost.flops_share
    return text if share is None else f"{text}; blocks take {100 * share:.1f}% of their FLOPs"
