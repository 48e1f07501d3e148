"""`surgery check SPEC...`: validate specs; show what they do, what that saves, and what can express it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from surgery.commands.compiled_folder import describe_recipe, recipe_to_json
from surgery.commands.inspection import describe_anatomy
from surgery.commands.output import JsonFlag, bytes_text, count_text, print_json, say, share_text
from surgery.commands.plan_costs import cost_of, cost_of_both, cost_to_json, course_in_steps
from surgery.commands.spec_options import POINT_HELP, MeansOption, ModelOption
from surgery.errors import InputError, NotYetError, SurgeryError
from surgery.outputs import write_file
from surgery.plan.backends import Verdict, judge_backends
from surgery.plan.changes import changes_text
from surgery.plan.cost import WHOLE, Cost, Course
from surgery.plan.plan import Plan
from surgery.plan.planned import Finder, PlannedSource, find_once
from surgery.plan.planned_pair import AnyPlannedSource, PlannedPairSource, parts_of, plan_model_sweep_file
from surgery.plan.text import items_to_text
from surgery.plan.walk_cost import WalkCost, walk_cost
from surgery.plan.windowed import WindowedPlan, names_of
from surgery.publish.artefact import AS_OPTION, Artefact, find_base, read_compiled
from surgery.publish.manifest import SPEC, kind_of_folder
from surgery.publish.planned_folder import is_model_folder, plan_of_artefact, refuse_without_recipe
from surgery.spec.load import Spec, load_spec, name_of_path
from surgery.spec.selector import indices_to_text
from surgery.spec.spec_name import SUFFIXES, name_of_point, parse_spec_name
from surgery.text_table import table

NO_BOUNDARY = (
    "when each of the two runs is not known (its index has no boundary_ratio): executions are of the whole range"
)
OF_A_PART = ("groups", "plan", "cost", "backends", "code")  # what the document says of each of two transformers


class Show(StrEnum):
    """What `check` prints of a valid spec."""

    plan = "plan"
    graph = "graph"
    code = "code"
    anatomy = "anatomy"


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


@dataclass(frozen=True)
class Shown:
    """What is shown and written of a valid spec: the command's options."""

    show: Show | None = None
    svg: Path | None = None
    steps: int | None = None
    points: bool = False
    force: bool = False


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


def describe_planned(planned: AnyPlannedSource, shown: Shown) -> tuple[dict[str, Any], str]:
    """The JSON document and the text of what is planned of one spec; its drawing is written where it is asked for."""
    if shown.svg is not None:
        write_svg(planned, shown.svg, force=shown.force)
    if isinstance(planned, PlannedPairSource):
        return describe_pair(planned, shown.show, shown.steps)
    return describe(planned, shown.show, course_in_steps(planned, shown.steps), shown.steps)


def check_folder(artefact: Artefact, shown: Shown, *, model: str | None) -> tuple[dict[str, Any], str]:
    """The JSON document and the text of a compiled folder: its plan, and whether its weights are what was compiled.

    Without its base, which `model` names, the plan is told alone.
    """
    try:
        base = find_base(artefact, model, advice=AS_OPTION)
    except InputError as error:
        if model is not None or shown.svg is not None or shown.show not in (None, Show.plan):
            raise
        document = {"spec": str(artefact.folder), "model": artefact.base.model, "plan": artefact.plan.to_json()}
        head = f"{artefact.folder}: plan {artefact.plan.hash[:12]}"
        text = f"{head}\n{artefact.plan.text}what it saves is not told: {error}"
    else:
        document, text = describe_planned(plan_of_artefact(artefact, base), shown)
    state = artefact.state()
    document["recipe"] = recipe_to_json(artefact, state)
    told = describe_recipe(artefact, state)
    if shown.show is None:
        return document, f"{text}; weights {state}"
    if shown.show is Show.code:
        return document, "\n".join([*(f"# {line}" for line in told), text])
    return document, "\n".join([text, *told])


def describe_sweep(variants: Sequence[AnyPlannedSource], shown: Shown) -> tuple[dict[str, Any], str]:
    """The JSON document and the text of a sweep: a line, and one for each of its points where they are asked for."""
    file = variants[0].spec.file
    document: dict[str, Any] = {
        "spec": file,
        "model": variants[0].source.name,
        "variants": [
            {
                "name": each.spec.name,
                "spec": each.spec.address,
                "point": dict(each.spec.point),
                "plan": each.plan.to_json(),
                "cost": cost_of(each, shown.steps),
            }
            for each in variants
        ],
    }
    walk = walk_of(variants)
    if walk is not None:
        document["walk"] = walk.to_json()
    same = len(variants) - len({each.plan.hash for each in variants})
    note = f", {same} of them the same as another" if same else ""
    text = f"{file}: valid, a sweep of {len(variants)} variants{note}"
    if walk is not None:
        text = f"{text}\n  {describe_walk(walk)}"
    return document, f"{text}\n{describe_points(variants, shown.steps)}" if shown.points else text


def walk_of(variants: Sequence[AnyPlannedSource]) -> WalkCost | None:
    """What a forward of every variant costs, and of all in one walk; None where it hangs on the timestep or the branch
    what one runs, or it is of two transformers.
    """
    plans = [each.plan for each in variants if isinstance(each, PlannedSource) and isinstance(each.plan, Plan)]
    first = variants[0]
    if len(plans) < len(variants) or not isinstance(first, PlannedSource):
        return None
    return walk_cost(plans, first.anatomy)


def describe_walk(walk: WalkCost) -> str:
    """What a sweep costs, in runs of blocks and, where they are known, the FLOPs of those."""
    text = (
        f"one forward of each: {walk.forwards:,} forwards, {walk.runs:,} runs of blocks; the denoising errors of all "
        f"in one walk: {walk.walk_runs:,} ({100 * walk.runs_share:.0f}%)"
    )
    if walk.flops_share is None:
        return text
    counts = f"{count_text(walk.walk_flops)} of {count_text(walk.flops)}"
    return f"{text}, {counts} FLOPs ({100 * walk.flops_share:.0f}%)"


def describe_points(variants: Sequence[AnyPlannedSource], steps: int | None) -> str:
    """A table with a line a point: its name as a command takes it, what it saves, and what it changes."""
    rows = [[quoted_address(each.spec), *savings_of(each, steps), changes_text(each.plan)] for each in variants]
    return table(rows, indent="  ", right={1, 2}, wrap={3})


def savings_of(planned: AnyPlannedSource, steps: int | None) -> list[str]:
    """What a spec saves; of two transformers, the parameters of both together."""
    course = course_in_steps(planned, steps)
    if not isinstance(planned, PlannedPairSource):
        return describe_savings(planned.cost_on(course))
    before, after = cost_of_both(planned, planned.courses(course))["parameters"].values()
    return [f"saves {share_text(before - after, before)}", ""]


def describe_savings(cost: Cost) -> list[str]:
    """The share of the parameters that a plan saves, and that of the FLOPs that its blocks take."""
    saved = share_text(cost.parameters_before - cost.parameters_after, cost.parameters_before)
    flops = "" if cost.flops_share is None else f"{100 * cost.flops_share:.0f}% of the FLOPs"
    return [f"saves {saved}", flops]


def quoted_address(spec: Spec) -> str:
    """The name of a point as it is typed in a shell."""
    return shlex.quote(name_of_point(spec.path, spec.point))


def describe_pair(planned: PlannedPairSource, show: Show | None, steps: int | None) -> tuple[dict[str, Any], str]:
    """The JSON document of a valid spec that edits two transformers, and its text: that of each, below its name."""
    plan = planned.plan
    courses = planned.courses(course_in_steps(planned, steps))
    found = {part: describe(each, show, courses[part], steps) for part, each in planned.sources.items()}
    document = {
        "spec": planned.spec.file,
        "model": planned.source.name,
        "plan": plan.to_json(),
        "cost": cost_of_both(planned, courses),
        "transformers": {
            part: {name: each[name] for name in OF_A_PART if name in each} for part, (each, _) in found.items()
        },
    }
    if show is None:
        return document, "\n".join(f"{part}: {text}" for part, (_, text) in found.items())
    if show is Show.code:
        return document, "\n".join(f"# {part}\n{text}" for part, (_, text) in found.items())
    head = f"{planned.spec.file}: {planned.spec.title or 'valid'}\n{planned.source.name}: plan {plan.hash[:12]} of both"
    texts = [f"{part}:\n{text}" for part, (_, text) in found.items()]
    return document, "\n\n".join([head, *texts, describe_both(planned, courses)])


def describe_both(planned: PlannedPairSource, courses: Mapping[str, Course]) -> str:
    """What is saved of two transformers together, in one line; and how much is run, of which each runs its part."""
    cost = cost_of_both(planned, courses)
    (before, after), shares = cost["parameters"].values(), cost["share_of_run"]
    share = share_text(before - after, before)
    text = f"both: saves {count_text(before - after)} of {count_text(before)} parameters ({share})"
    if not shares:
        return f"{text}; {NO_BOUNDARY}"
    text = f"{text}; of a run {' and '.join(f'{part} {100 * share:.1f}%' for part, share in shares.items())}"
    executions = cost["block_executions"]
    if executions is None:
        return f"{text}; how many blocks they run hangs on the number of steps (give --steps)"
    return f"{text}, together {share_text(executions['after'], executions['before'])} of the blocks' executions"


def describe(
    planned: PlannedSource, show: Show | None, course: Course = WHOLE, steps: int | None = None
) -> tuple[dict[str, Any], str]:
    """The JSON document of one valid spec, and its text: a line, or what `show` asks for."""
    plan, anatomy = planned.plan, planned.anatomy
    verdicts, cost = judge_backends(plan, anatomy), planned.cost_on(course)
    document = {
        "spec": planned.spec.address,
        "model": planned.source.name,
        **({"groups": {item.group.name: item.selector for item in planned.groups}} if planned.groups else {}),
        "plan": plan.to_json(),
        "cost": cost_to_json(cost),
        "backends": {item.backend: {"answer": item.answer, "reasons": list(item.reasons)} for item in verdicts},
    }
    match show:
        case None:
            return document, describe_line(planned, verdicts, cost)
        case Show.plan:
            return document, describe_plan(planned, verdicts, course, steps)
        case Show.anatomy:
            return document, describe_anatomy(planned.source.name, anatomy)
        case Show.graph:
            from surgery.report.draw_text import draw_text

            return document, f"{_head(planned)}\n\n{draw_text(plan, anatomy)}"
        case Show.code:
            code = code_of_variant(planned)
            return {**document, "code": code}, code


def code_of_variant(planned: PlannedSource) -> str:
    """The Python code of the rewritten forward, traced on the example inputs of the model's class."""
    from surgery.anatomy.sources import build_on_meta
    from surgery.graph.transformer_variants import tensors_of_means
    from surgery.graph.variant import build_variant, source_of_variant

    tensors = None if planned.means is None else tensors_of_means(planned.means)
    return source_of_variant(build_variant(build_on_meta(planned.source), planned.plan, planned.anatomy, tensors))


def write_svg(planned: AnyPlannedSource, path: Path, *, force: bool) -> None:
    """Write the drawing of a plan; of two transformers one below the other."""
    from surgery.report.draw_svg import draw_svg

    anatomies = [each.anatomy for each in parts_of(planned)]
    svg = draw_svg(planned.plan, *anatomies, title=planned.spec.title or path.stem)
    write_file(path, svg, force=force)


def describe_line(planned: PlannedSource, verdicts: Sequence[Verdict], cost: Cost) -> str:
    """A valid spec in one line: what it saves, and which backends can express it."""
    savings = ", ".join(filter(None, describe_savings(cost)))
    return f"{planned.spec.address}: valid, {savings}; {'; '.join(map(describe_verdict, verdicts))}"


def describe_plan(
    planned: PlannedSource, verdicts: Sequence[Verdict], course: Course = WHOLE, steps: int | None = None
) -> str:
    """What a spec does, to be read: a line a stack, a line a replacement, what is saved, and what can express it.

    With windows, what it does is told once for each plan, below the atoms in which that runs.
    """
    lines = [_head(planned)]
    groups = [f"  {item.group.name} = {item.selector}, from {item.group.reference}" for item in planned.groups]
    if isinstance(planned.plan, WindowedPlan):
        lines += groups
        for plan, atoms in planned.plan.by_plan.items():
            lines += [f"  when {names_of(atoms)}", *describe_schedules(plan, indent="    ")]
    else:
        schedules, *replaced = describe_schedules(planned.plan, indent="  ")
        lines += [schedules, *groups, *replaced]
    lines.append(f"  {describe_cost(planned, course, steps)}")
    return "\n".join(lines + [f"  {describe_verdict(verdict)}" for verdict in verdicts])


def describe_schedules(plan: Plan, *, indent: str) -> list[str]:
    """A table with a line a stack, and a line a replacement."""
    rows = []
    for schedule in plan.schedules:
        gone = f"without {indices_to_text(schedule.removed)}" if schedule.removed else ""
        note = "unchanged" if schedule.is_identity else gone
        rows.append([f"{schedule.stack}[{schedule.num_blocks}]", items_to_text(schedule.items), note])
    replaced = [f"{indent}{item.stack}[{item.index}].{item.component} = {item.kind}" for item in plan.replacements]
    return [table(rows, indent=indent, wrap={1, 2}), *replaced]


def _head(planned: PlannedSource) -> str:
    plan = planned.plan
    title = f"{planned.spec.address}: {planned.spec.title or 'valid'}"
    return f"{title}\n{planned.source.name}: {plan.class_name}, plan {plan.hash[:12]}"


def describe_verdict(verdict: Verdict) -> str:
    """`checkpoint no: ...`: a backend's answer and its reasons."""
    return f"{verdict.backend} {verdict.answer}" + (f": {', and '.join(verdict.reasons)}" if verdict.reasons else "")


def describe_cost(planned: PlannedSource, course: Course, steps: int | None) -> str:
    """Parameters, bytes and FLOPs, before and after; with windows, how much runs on a course."""
    anatomy, cost = planned.anatomy, planned.cost_on(course)
    saved = cost.parameters_before - cost.parameters_after
    saved_bytes = cost.bytes_before - cost.bytes_after
    at = "" if anatomy.has_weights else f" as {anatomy.dtype}"
    text = (
        f"saves {count_text(saved)} of {count_text(cost.parameters_before)} parameters "
        f"({share_text(saved, cost.parameters_before)}), {bytes_text(saved_bytes)}{at}"
    )
    share = cost.flops_share
    text = text if share is None else f"{text}; blocks take {100 * share:.1f}% of their FLOPs"
    if not isinstance(planned.plan, WindowedPlan):
        return text
    if not course.length:
        return f"{text}; it never runs"
    if cost.executions_share is None:
        return f"{text}; how many blocks it runs hangs on the number of steps (give --steps)"
    where = "over the noise range" if steps is None else f"in {steps} steps"
    if course.steps is None and course.length < 1:
        where = f"over its part of the noise range, {course.span[0]:g} to {course.span[1]:g}"
    elif course.steps is not None and len(course.steps) != steps:
        where = f"in its {len(course.steps)} of {steps} steps"
    return f"{text}; it runs {100 * cost.executions_share:.1f}% of the blocks' executions, {where}"
