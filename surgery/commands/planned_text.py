"""What is planned of a spec, for people and as plain data: what it does, what that saves, and what can express it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from surgery.commands.inspection import describe_anatomy
from surgery.commands.output import bytes_text, count_text, share_text
from surgery.commands.plan_costs import cost_of_both, cost_to_json, course_in_steps
from surgery.outputs import write_file
from surgery.plan.backends import Verdict, judge_backends
from surgery.plan.cost import WHOLE, Cost, Course
from surgery.plan.plan import Plan
from surgery.plan.planned import PlannedSource
from surgery.plan.planned_pair import AnyPlannedSource, PlannedPairSource, parts_of
from surgery.plan.text import items_to_text
from surgery.plan.windowed import WindowedPlan, names_of
from surgery.spec.selector import indices_to_text
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


@dataclass(frozen=True)
class Shown:
    """What is shown and written of a valid spec: the command's options."""

    show: Show | None = None
    svg: Path | None = None
    steps: int | None = None
    points: bool = False
    force: bool = False


def describe_planned(planned: AnyPlannedSource, shown: Shown) -> tuple[dict[str, Any], str]:
    """The JSON document and the text of what is planned of one spec; its drawing is written where it is asked for."""
    if shown.svg is not None:
        write_svg(planned, shown.svg, force=shown.force)
    if isinstance(planned, PlannedPairSource):
        return describe_pair(planned, shown.show, shown.steps)
    return describe(planned, shown.show, course_in_steps(planned, shown.steps), shown.steps)


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


def describe_savings(cost: Cost) -> list[str]:
    """The share of the parameters that a plan saves, and that of the FLOPs that its blocks take."""
    saved = share_text(cost.parameters_before - cost.parameters_after, cost.parameters_before)
    flops = "" if cost.flops_share is None else f"{100 * cost.flops_share:.0f}% of the FLOPs"
    return [f"saves {saved}", flops]


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
