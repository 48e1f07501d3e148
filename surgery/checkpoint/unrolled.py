"""A plan -> the layers that a checkpoint writes out for each stack, one after the other."""

from surgery.anatomy.anatomy import Anatomy
from surgery.errors import RefusedError
from surgery.plan.backends import judge_backends
from surgery.plan.plan import Plan
from surgery.plan.schedule import Layer, unroll


def unroll_plan(plan: Plan, anatomy: Anatomy) -> dict[str, tuple[Layer, ...]]:
    """For each stack its layers in the order in which they run, a loop as often as it runs.

    Raises:
        RefusedError: no stock class can run the plan; with every reason.
    """
    _, verdict = judge_backends(plan, anatomy)
    if verdict.answer == "no":
        reasons = "\n".join(f"  {reason}" for reason in verdict.reasons)
        raise RefusedError(f"no stock checkpoint can express this plan:\n{reasons}\n{OTHER_BACKEND}")
    return {schedule.stack: tuple(unroll(schedule.items)) for schedule in plan.schedules}


OTHER_BACKEND = "the graph backend runs it: surgery compile SPEC --to graph"
