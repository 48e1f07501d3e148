"""The forward of a variant whose spec has windows: each row of a call runs under the plan of the atom it stands in."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from surgery.errors import InputError
from surgery.graph.removed_blocks import RemovedBlocks
from surgery.graph.rewritten_forward import RewrittenForward
from surgery.graph.split_rows import num_rows_of, run_apart
from surgery.graph.switched_components import running
from surgery.graph.traces import Traces
from surgery.pipelines.standing import Standing, standing_of_rows
from surgery.pipelines.timestep_convention import known_convention, share_of_rows
from surgery.plan.plan import Plan
from surgery.plan.windowed import WindowedPlan
from surgery.tracing.arguments import parameters_of
from surgery.tracing.wrappers import innermost


class WindowedForward:
    """A forward for each plan of the atoms, over one model; blocks are let go that none of them runs.

    Held by the variant; knows it only as an argument, so that copies of a variant work on their own weights.
    """

    def __init__(self, model: nn.Module, plan: WindowedPlan, traces: Traces | None = None) -> None:
        self.original_class = type(model)
        self.plan = plan
        removed = RemovedBlocks(model, plan.plans)
        self.forwards = {within: RewrittenForward(model, within, removed, traces) for within in plan.plans}
        self.names = tuple(parameters_of(innermost(self.original_class.forward)))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def run(self, variant: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the rows of a call, those under one plan together.

        Raises:
            RefusedError: where a row stands is not known.
            InputError: a window goes by steps, or by branches, and nobody says in which the call is.
        """
        named = {**dict(zip(self.names, args, strict=False)), **kwargs}
        num_rows = num_rows_of(next(iter(named.values()), None))
        plans = [self.plan_of(standing) for standing in standing_of_rows(variant, named, num_rows, self.tell_alone)]
        different = list(dict.fromkeys(plans))
        if len(different) == 1:
            return self.run_plan(variant, different[0], args, kwargs)
        parts = [[row for row, of_row in enumerate(plans) if of_row == plan] for plan in different]
        return run_apart(
            parts, args, kwargs, lambda number, some, named: self.run_plan(variant, different[number], some, named)
        )

    def run_plan(self, variant: nn.Module, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call under one plan."""
        with running(plan):
            return self.forwards[plan].run(variant, args, kwargs)

    def plan_of(self, standing: Standing) -> Plan:
        """What runs for a row that stands there; what no window goes by need not be known."""
        if self.plan.goes_by_steps and standing.step is None:
            raise InputError(
                "the windows of this variant go by steps (when: steps), and a transformer alone is in no step of a "
                "sampler; run it in the pipeline that surgery.apply returns, or within surgery.standing_at(step=...)"
            )
        if self.plan.goes_by_branches and standing.branch is None:
            raise InputError(
                "the windows of this variant go by the branch of guidance (when: branch), and nothing says of which "
                "branch these rows are; run it in the pipeline that surgery.apply returns, or within "
                'surgery.standing_at(branch="conditional")'
            )
        return self.plan.plan_at(standing.share or 0.0, standing.step or 0, standing.branch or "conditional")

    def tell_alone(self, model: nn.Module, named: Mapping[str, Any], num_rows: int) -> Sequence[Standing]:
        """Where rows stand that no pipeline tells of: by what was learnt of the family's timesteps.

        Raises:
            InputError: nothing was learnt of them, and the windows go by timesteps.
        """
        if not self.plan.goes_by_timesteps:
            return [Standing()] * num_rows
        convention = known_convention(model)
        if convention is None:
            raise InputError(
                f"the windows of this variant go by timesteps, and how a {type(model).__name__} is given them is not "
                "known; run it in the pipeline that surgery.apply returns (which teaches it), or within "
                "surgery.standing_at(timestep=...)"
            )
        return [Standing(share) for share in share_of_rows(convention, named, num_rows)]
