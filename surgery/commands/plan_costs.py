"""What a planned spec saves and runs, as plain data: of one transformer, or of two."""

from collections.abc import Mapping
from typing import Any

from surgery.plan.cost import WHOLE, Cost, Course, course_of
from surgery.plan.plan import Plan
from surgery.plan.planned_pair import AnyPlannedSource, PlannedPairSource


def course_in_steps(planned: AnyPlannedSource, steps: int | None) -> Course:
    """Where a run of so many steps of the model's own sampler calls the model, if that makes a difference here."""
    if steps is None or isinstance(planned.plan, Plan):
        return WHOLE
    from surgery.pipelines.scheduler_steps import shares_of_source

    return course_of(shares_of_source(planned.source, steps))


def cost_of(planned: AnyPlannedSource, steps: int | None) -> dict[str, Any]:
    """Plain data of what a spec saves; of two transformers, of each by its name."""
    course = course_in_steps(planned, steps)
    if isinstance(planned, PlannedPairSource):
        courses = planned.courses(course)
        return {part: cost_to_json(each.cost_on(courses[part])) for part, each in planned.sources.items()}
    return cost_to_json(planned.cost_on(course))


def cost_of_both(planned: PlannedPairSource, courses: Mapping[str, Course]) -> dict[str, Any]:
    """Plain data of what two transformers save together, and how much runs in a step, of which each runs its part."""
    costs = {part: each.cost_on(courses[part]) for part, each in planned.sources.items()}
    shares = shares_of_run(planned, courses)
    each_alone = [cost_to_json(cost) for cost in costs.values()]
    found: dict[str, Any] = {
        name: {side: sum(alone[name][side] for alone in each_alone) for side in ("before", "after")}
        for name in ("parameters", "bytes")
    }
    run = [(share, costs[part]) for part, share in shares.items() if share]
    executions = None
    if run and all(cost.executions_after is not None for _, cost in run):
        executions = {
            "before": sum(share * cost.executions_before for share, cost in run),
            "after": sum(share * (cost.executions_after or 0) for share, cost in run),
        }
    return {**found, "block_executions": executions, "share_of_run": dict(shares)}


def shares_of_run(planned: PlannedPairSource, courses: Mapping[str, Course]) -> Mapping[str, float]:
    """How much of a run each of two transformers does; nothing where the pipeline does not say."""
    if planned.source.boundary is None:
        return {}
    whole = sum(course.length for course in courses.values())
    return {part: course.length / whole for part, course in courses.items()}


def cost_to_json(cost: Cost) -> dict[str, Any]:
    """Plain data of what a plan saves."""
    return {
        "parameters": {"before": cost.parameters_before, "after": cost.parameters_after},
        "bytes": {"before": cost.bytes_before, "after": cost.bytes_after},
        "block_flops_share": cost.flops_share,
        "block_executions": {"before": cost.executions_before, "after": cost.executions_after},
    }
