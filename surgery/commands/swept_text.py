"""What is planned of a sweep, for people and as plain data: its points, and what all of them cost in one walk."""

import shlex
from collections.abc import Sequence
from typing import Any

from surgery.commands.output import count_text, share_text
from surgery.commands.plan_costs import cost_of, cost_of_both, course_in_steps
from surgery.commands.planned_text import Shown, describe_savings
from surgery.plan.changes import changes_text
from surgery.plan.plan import Plan
from surgery.plan.planned import PlannedSource
from surgery.plan.planned_pair import AnyPlannedSource, PlannedPairSource
from surgery.plan.walk_cost import WalkCost, walk_cost
from surgery.spec.load import Spec
from surgery.spec.spec_name import name_of_point
from surgery.text_table import table


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


def quoted_address(spec: Spec) -> str:
    """The name of a point as it is typed in a shell."""
    return shlex.quote(name_of_point(spec.path, spec.point))
