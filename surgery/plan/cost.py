"""What a plan saves: parameters, bytes, and the share of the blocks' FLOPs."""

from dataclasses import dataclass

from surgery.anatomy.anatomy import Anatomy
from surgery.plan.plan import Plan
from surgery.plan.schedule import count_executions


@dataclass(frozen=True)
class Cost:
    """Parameters and bytes of the whole model before and after, and FLOPs of all blocks in one forward.

    FLOPs are those of matrix products and attention at the example sizes; 0 before where they are unknown.
    """

    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    flops_before: int
    flops_after: int

    @property
    def flops_share(self) -> float | None:
        """FLOPs after as a share of FLOPs before; None where they are unknown."""
        return self.flops_after / self.flops_before if self.flops_before else None


def plan_cost(plan: Plan, anatomy: Anatomy) -> Cost:
    """What the variant of a plan costs. Repeats share their weights; replaced components lose theirs."""
    lost_parameters = lost_bytes = flops_before = flops_after = 0
    for schedule in plan.schedules:
        stack = anatomy.stack(schedule.stack)
        executions = count_executions(schedule.items)
        for index in range(stack.num_blocks):
            kind = stack.kind(index)
            flops_before += kind.flops
            flops_after += kind.flops * executions.get(index, 0)
            if index in schedule.removed:
                lost_parameters += kind.num_parameters
                lost_bytes += kind.size_bytes
    for replaced in plan.replacements:
        stack = anatomy.stack(replaced.stack)
        runs = count_executions(plan.schedule(replaced.stack).items).get(replaced.index, 0)
        kind = stack.kind(replaced.index)
        component = kind.find_component(replaced.component)
        assert component is not None, "a plan is made for an anatomy"
        flops_after -= component.flops * runs
        if runs:
            lost_parameters += component.num_parameters
            lost_bytes += component.num_parameters * kind.size_bytes // max(1, kind.num_parameters)
    return Cost(
        anatomy.num_parameters,
        anatomy.num_parameters - lost_parameters,
        anatomy.size_bytes,
        anatomy.size_bytes - lost_bytes,
        flops_before,
        flops_after,
    )
