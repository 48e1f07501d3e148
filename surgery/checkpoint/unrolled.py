"""A plan -> the layers that a checkpoint writes out for each stack, one after the other."""

from surgery.anatomy.anatomy import Anatomy
from surgery.errors import RefusedError
from surgery.plan.backends import WINDOWS, judge_backends
from surgery.plan.plan import Plan
from surgery.plan.schedule import Layer, unroll
from surgery.plan.windowed import AnyPlan, WindowedPlan


def stock_plan(plan: AnyPlan) -> Plan:
    """The plan, if it runs the same in every step.

    Raises:
        RefusedError: it has windows, which no stock class has.
    """
    if isinstance(plan, WindowedPlan):
        raise RefusedError(f"no stock checkpoint can express this plan:\n  {WINDOWS}\n{OTHER_BACKEND}")
    return plan


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
