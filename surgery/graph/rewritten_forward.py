"""The forward of a variant: the graph that fits a call, of those that it holds, or one that is traced and rewritten."""

import contextlib
import warnings
from collections.abc import Hashable
from typing import Any

import torch
from torch import fx, nn

from surgery.errors import PartialTraceWarning, TraceError
from surgery.graph.checkpointing import restore_checkpointed_calls_
from surgery.graph.graph_code import CompiledForward, compile_graph, names_in_graph, readable_source
from surgery.graph.held_graphs import HeldGraph, HeldGraphs
from surgery.graph.partial import trace_partial_forward
from surgery.graph.removed_blocks import RemovedBlocks
from surgery.graph.rewrite import rewrite_graph
from surgery.graph.traces import Traces, computing_dtype, edited_stacks
from surgery.plan.plan import Plan
from surgery.tracing.arguments import FlatCall, flatten_call, parameters_of
from surgery.tracing.guards import GuardViolation, key_of_call, sizes_of_call
from surgery.tracing.own_objects import names_of_objects
from surgery.tracing.tracer import ContentsNeededError
from surgery.tracing.wrappers import innermost

IN_PART = "its stacks are traced from their first block to their last, the rest of its forward runs as it is"


class RewrittenForward:
    """The graphs of one variant, by what their calls take for granted, and what it takes to trace another.

    Held by the variant; knows it only as an argument, so that copies of a variant work on their own weights. `removed`
    are the blocks that the variant lacks, where these are not all that the plan never runs; `traces` are those of all
    variants of the model, where others are made.
    """

    def __init__(
        self, model: nn.Module, plan: Plan, removed: RemovedBlocks | None = None, traces: Traces | None = None
    ) -> None:
        self.original_class = type(model)
        self.plan = plan
        self.removed = removed or RemovedBlocks(model, (plan,))
        self.traces = traces or Traces(0)
        self.inner = innermost(self.original_class.forward)
        self.parameters = parameters_of(self.inner)
        self.objects = names_of_objects(model)
        self.graphs = HeldGraphs()
        self.first_source: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without graphs, which name the objects that they were traced of: a copy traces its own."""
        return {**vars(self), "inner": None, "traces": Traces(0), "graphs": HeldGraphs()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.inner = innermost(self.original_class.forward)

    def run(self, variant: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the graph that fits this call; trace one where there is none."""
        call = flatten_call(args, kwargs, self.parameters)
        key = key_of_call(variant, call, self.objects)
        for found in self.graphs.find(key) or self.graphs.find((key, sizes_of_call(call))):
            with contextlib.suppress(GuardViolation):
                return found(variant, *call.inputs)
        fresh = self.trace(variant, call)
        try:
            return fresh(variant, *call.inputs)
        except GuardViolation as violation:
            raise TraceError(
                f"{self.original_class.__name__} decides on the contents of a tensor ({violation}); it can't be traced"
            ) from violation

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def trace(self, variant: nn.Module, call: FlatCall, *, is_example: bool = False) -> CompiledForward:
        """Trace the model's own forward for this call, rewrite it, and keep it for calls like it.

        What decides on contents is traced on those of a real call; what still can't be traced whole is traced in part.
        """
        try:
            return self.trace_whole(variant, call, reads_contents=False)
        except TraceError as failure:
            if is_example:
                raise
            reason = str(failure)
            if isinstance(failure, ContentsNeededError):
                try:
                    return self.trace_whole(variant, call, reads_contents=True)
                except TraceError as on_contents:
                    reason = str(on_contents)
            return self.trace_in_part(variant, call, reason)

    def trace_whole(self, variant: nn.Module, call: FlatCall, *, reads_contents: bool) -> CompiledForward:
        """The whole forward as one graph; with `reads_contents` it may hang on what is in the tensors of the call."""
        graph, num_decisions = self.rewritten_graph(variant, call, reads_contents=reads_contents)
        key = key_of_call(variant, call, self.objects)
        if num_decisions or reads_contents:
            key = (key, sizes_of_call(call))
        source, names = readable_source(graph), names_in_graph(graph)
        return self.keep(variant, key, compile_graph(graph), source, names, reads_contents=reads_contents)

    def trace_in_part(self, variant: nn.Module, call: FlatCall, failure: str) -> CompiledForward:
        """The forward as it is around rewritten graphs of its stacks, because it can't be traced whole."""
        whole = self.removed.whole_model(variant, torch.device("meta"), computing_dtype(call))
        try:
            partial = trace_partial_forward(
                whole,
                variant,
                call,
                self.plan,
                self.removed.blocks,
                original_class=self.original_class,
                inner=self.inner,
            )
        except TraceError as error:
            raise TraceError(f"{failure}\nand its stacks can't be traced alone: {error}") from error
        warnings.warn(f"{failure}; {IN_PART}", PartialTraceWarning, stacklevel=4)
        source = f"# {failure}\n# {IN_PART}\n{partial.source}"
        return self.keep(variant, key_of_call(variant, call, self.objects), partial, source, partial.names)

    def keep(
        self,
        variant: nn.Module,
        key: Hashable,
        forward: CompiledForward,
        source: str,
        names: frozenset[str],
        *,
        reads_contents: bool = False,
    ) -> CompiledForward:
        """Keep what was traced for calls of this key; removed blocks that no graph names are let go."""
        self.removed.take_out(variant, names)
        self.first_source = self.first_source or source
        held = HeldGraph(_for_some_contents(forward) if reads_contents else forward, getattr(variant, "config", None))
        self.graphs.keep(key, held, reads_contents=reads_contents)
        return forward

    def rewritten_graph(
        self, variant: nn.Module, call: FlatCall, *, reads_contents: bool = False
    ) -> tuple[fx.Graph, int]:
        """The rewritten graph for this call, and how many decisions it checks."""
        traced = self.traces.trace(
            variant, self.removed, call, self.objects, edited_stacks(self.plan), reads_contents=reads_contents
        )
        schedules = {schedule.stack: schedule for schedule in self.plan.schedules}
        graph = rewrite_graph(traced.graph, traced.model, schedules)
        restore_checkpointed_calls_(graph)
        return graph, traced.num_decisions


def _for_some_contents(forward: CompiledForward) -> CompiledForward:
    """A graph that hangs on contents: with others it may fall over before a check notices them."""

    def run(variant: nn.Module, *inputs: Any) -> Any:
        try:
            return forward(variant, *inputs)
        except Exception as error:  # if it is not that, the graph that is traced next raises it
            raise GuardViolation(f"traced for other contents: {error}") from error

    return run
