"""A budget: how much of what a variant may have, as `blocks=9` or `parameters=75%`; and how much of it one has."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from surgery.anatomy.anatomy import Anatomy
from surgery.errors import InputError
from surgery.plan.cost import Course, plan_cost
from surgery.plan.windowed import AnyPlan, plans_of
from surgery.spec.nearest import shorten, unknown_text

BudgetKind = Literal["blocks", "parameters", "flops", "executions", "latency"]
KINDS: tuple[BudgetKind, ...] = get_args(BudgetKind)
BUDGET = re.compile(r"\s*(\w+)\s*=\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([kKMGT]|%)?\s*")
FACTORS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
HOW = "write one like blocks=9, parameters=75%, flops=75%, executions=9 or latency=80%: what is left, at most"
DIGITS = 9  # behind the point: sums of shares of steps differ in the last bits by their order
UNIT_TEXTS: dict[str, str] = {
    "blocks": "blocks",
    "parameters": "parameters",
    "flops": "FLOPs of the blocks",
    "executions": "block executions a step",
    "latency": "ms a step of the transformer",
}


@dataclass(frozen=True)
class Budget:
    """At most so much of a kind: `number` of its unit, or that many percent of what the model has."""

    kind: BudgetKind
    number: float
    is_percent: bool

    @property
    def text(self) -> str:
        """As it is written."""
        return f"{self.kind}={self.number:g}{'%' if self.is_percent else ''}"

    def limit(self, full: float) -> float:
        """The number of the unit of a model that has `full` of it.

        Raises:
            InputError: the model has no more than that.
        """
        found = self.number / 100 * full if self.is_percent else self.number
        if found >= full:
            what = f"{amount_text(full)} {UNIT_TEXTS[self.kind]}"
            raise InputError(f"the budget {self.text} leaves the model as it is, which has {what}; write a smaller one")
        return found


def read_budget(text: str) -> Budget:
    """The budget of `--budget`; raises InputError where it is none."""
    found = BUDGET.fullmatch(text)
    if found is None:
        raise InputError(f'"{shorten(text)}" is no budget; {HOW}')
    if found[1] not in KINDS:
        raise InputError(f"{unknown_text('budget of', found[1], KINDS)}; {HOW}")
    try:
        number = float(found[2]) * (1.0 if found[3] == "%" else FACTORS[found[3] or ""])
    except ValueError:
        raise InputError(f'"{shorten(text)}" is no budget; {HOW}') from None
    if not number > 0 or not math.isfinite(number):
        raise InputError(f"the budget {shorten(text)} leaves nothing; {HOW}")
    return Budget(next(kind for kind in KINDS if kind == found[1]), number, found[3] == "%")


Amount = Callable[[AnyPlan], float]


@dataclass(frozen=True)
class Gauge:
    """How much of the budget's unit a variant has: by its plan, on the course of its sampler's steps.

    `timed` is the anatomy whose FLOPs are nanoseconds (see latency.py), and `rest_ms` what a forward takes beside its
    blocks; only of a budget of latency.
    """

    kind: BudgetKind
    anatomy: Anatomy
    course: Course
    timed: Anatomy | None = None
    rest_ms: float = 0.0

    @property
    def full(self) -> float:
        """How much the model has.

        Raises:
            InputError: that is not known.
        """
        match self.kind:
            case "blocks" | "executions":
                return float(sum(stack.num_blocks for stack in self.anatomy.stacks))
            case "parameters":
                return float(self.anatomy.num_parameters)
            case "latency":
                return round(self.rest_ms + block_flops(self.timed or self.anatomy) / 1e6, DIGITS)
            case "flops":
                if not block_flops(self.anatomy):
                    raise InputError(
                        f"the FLOPs of {self.anatomy.class_name} are not known: {self.anatomy.why_no_inputs}; give a "
                        "budget of executions, parameters or latency"
                    )
                return float(block_flops(self.anatomy))

    def amount(self, plan: AnyPlan) -> float:
        """How much a variant of this plan has."""
        if self.kind == "blocks":
            return float(sum(_num_used(plan, stack.name, self.anatomy) for stack in self.anatomy.stacks))
        cost = plan_cost(plan, self.timed or self.anatomy, self.course)
        found = {
            "parameters": cost.parameters_after,
            "executions": cost.executions_after,
            "flops": cost.flops_after,
            "latency": self.rest_ms + (cost.flops_after or 0) / 1e6,
        }[self.kind]
        assert found is not None, "a course has steps"
        return round(float(found), DIGITS)


def block_flops(anatomy: Anatomy) -> int:
    """The FLOPs of all blocks in one forward."""
    return sum(stack.kind(index).flops for stack in anatomy.stacks for index in range(stack.num_blocks))


def _num_used(plan: AnyPlan, stack: str, anatomy: Anatomy) -> int:
    own = anatomy.stack(stack)
    return len(frozenset[int]().union(*(each.schedule_of(own).used for each in plans_of(plan))))


def amount_text(number: float) -> str:
    """`9`, `8.85`, `3.93 M`."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if number >= size:
            return f"{number / size:.4g}{unit}"
    return f"{number:.6g}"
