"""What a plan saves: parameters, bytes, and executions and FLOPs of the blocks over a trajectory."""

from collections.abc import Sequence
from dataclasses import dataclass

from surgery.anatomy.anatomy import Anatomy
from surgery.plan.plan import Plan, ReplacedComponent
from surgery.plan.schedule import count_executions
from surgery.plan.windowed import AnyPlan, WindowedPlan, plans_of
from surgery.spec.operations import BRANCHES


@dataclass(frozen=True)
class Course:
    """Where a run calls a transformer: in these `steps` of a sampler, each with its number and its share of the noise
    range; or, without a number of steps, all over a part of the range."""

    span: tuple[float, float] = (0.0, 1.0)
    steps: tuple[tuple[int, float], ...] | None = None

    @property
    def length(self) -> float:
        """The number of steps, or the share of the noise range."""
        return self.span[1] - self.span[0] if self.steps is None else len(self.steps)

    def cut(self, boundary: float) -> tuple["Course", "Course"]:
        """What of it lies at or above a share of the noise range, and what below."""
        low, high = self.span
        middle = min(max(boundary, low), high)
        above = below = None
        if self.steps is not None:
            above = tuple(step for step in self.steps if step[1] >= boundary)
            below = tuple(step for step in self.steps if step[1] < boundary)
        return Course((middle, high), above), Course((low, middle), below)


WHOLE = Course()


def course_of(trajectory: Sequence[float] | None) -> Course:
    """The course over the steps of a sampler, given by their shares of the noise range; without them, all over it."""
    return WHOLE if trajectory is None else Course(steps=tuple(enumerate(trajectory)))


@dataclass(frozen=True)
class Cost:
    """Parameters and bytes of the whole model before and after; block executions and FLOPs of all blocks in a forward.

    Those of a plan with windows are means over a course and both branches, None where its steps are not known, or there
    are none.
    FLOPs are those of matrix products and attention at the example sizes; 0 before where they are unknown.
    """

    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    executions_before: int
    executions_after: float | None
    flops_before: int
    flops_after: float | None

    @property
    def flops_share(self) -> float | None:
        """FLOPs after as a share of FLOPs before; None where they are unknown."""
        return None if self.flops_after is None or not self.flops_before else self.flops_after / self.flops_before

    @property
    def executions_share(self) -> float | None:
        """Block executions after as a share of those before; None where they are unknown, or there are no blocks."""
        is_known = self.executions_after is not None and self.executions_before
        return (self.executions_after or 0) / self.executions_before if is_known else None


def plan_cost(plan: AnyPlan, anatomy: Anatomy, course: Course = WHOLE) -> Cost:
    """What the variant of a plan costs on a course. Repeats share their weights; what no atom runs is not there."""
    plans = plans_of(plan)
    lost_parameters, lost_bytes = _lost(plans, anatomy)
    shares = _shares_of_plans(plan, course)
    before = _work(anatomy)
    works = [_work(anatomy, each) for each in plans]
    after = None if shares is None else [sum(s * w[k] for s, w in zip(shares, works, strict=True)) for k in (0, 1)]
    return Cost(
        anatomy.num_parameters,
        anatomy.num_parameters - lost_parameters,
        anatomy.size_bytes,
        anatomy.size_bytes - lost_bytes,
        before[0],
        None if after is None else after[0],
        before[1],
        None if after is None else after[1],
    )


def compare_costs(before: Anatomy, after: Anatomy) -> Cost:
    """What one model costs beside another, whatever was done to it.

    How much of its blocks runs is told of models of one class, and FLOPs where both are known at the same sizes.
    """
    executions, flops = (list(pair) for pair in zip(_work(before), _work(after), strict=True))
    is_alike = before.class_name == after.class_name
    is_known = is_alike and bool(before.example) and before.example == after.example and 0 not in flops
    return Cost(
        *(before.num_parameters, after.num_parameters),
        *(before.size_bytes, after.size_bytes),
        *(executions[0], executions[1] if is_alike else None),
        *(flops[0], flops[1] if is_known else None),
    )


def _shares_of_plans(plan: AnyPlan, course: Course) -> list[float] | None:
    """How much of a course runs each of the plans; None where it hangs on the number of steps, or there are none."""
    if not isinstance(plan, WindowedPlan):
        return [1.0]
    if not course.length or (course.steps is None and plan.goes_by_steps):
        return None
    shares = dict.fromkeys(plan.plans, 0.0)
    for step, share in course.steps or ():
        for branch in BRANCHES:
            shares[plan.plan_at(share, step, branch)] += 0.5 / course.length
    for atom, within in plan.atoms if course.steps is None else ():
        low, high = max(atom.timesteps[0], course.span[0]), min(atom.timesteps[1], course.span[1])
        shares[within] += max(0.0, high - low) / course.length * (1.0 if atom.branch is None else 0.5)
    return list(shares.values())


def _work(anatomy: Anatomy, plan: Plan | None = None) -> tuple[int, int]:
    """Block executions and FLOPs of one forward; without a plan, those of the model as it is."""
    executions = flops = 0
    for stack in anatomy.stacks:
        counts = None if plan is None else count_executions(plan.schedule_of(stack).items)
        for index in range(stack.num_blocks):
            count = 1 if counts is None else counts.get(index, 0)
            executions += count
            flops += stack.kind(index).flops * count
    if plan is None:
        return executions, flops
    for replaced in plan.replacements:
        runs = count_executions(plan.schedule(replaced.stack).items).get(replaced.index, 0)
        component = anatomy.stack(replaced.stack).kind(replaced.index).find_component(replaced.component)
        assert component is not None, "a plan is made for an anatomy"
        flops -= component.flops * runs
    return executions, flops


def _lost(plans: Sequence[Plan], anatomy: Anatomy) -> tuple[int, int]:
    """Parameters and bytes of what none of the plans runs."""
    parameters = size_bytes = 0
    for stack in anatomy.stacks:
        used = frozenset[int]().union(*(plan.schedule_of(stack).used for plan in plans))
        for index in set(range(stack.num_blocks)) - used:
            kind = stack.kind(index)
            parameters += kind.num_parameters
            size_bytes += kind.size_bytes
    for replaced in _replaced_by_all(plans):
        kind = anatomy.stack(replaced.stack).kind(replaced.index)
        component = kind.find_component(replaced.component)
        assert component is not None, "a plan is made for an anatomy"
        parameters += component.num_parameters
        size_bytes += component.num_parameters * kind.size_bytes // max(1, kind.num_parameters)
    return parameters, size_bytes


def _replaced_by_all(plans: Sequence[Plan]) -> list[ReplacedComponent]:
    """Components of blocks that run, none of which runs its component."""
    if len(plans) > 1:
        return []  # a variant with windows keeps what it replaces
    return [item for item in plans[0].replacements if item.index in plans[0].schedule(item.stack).used]
