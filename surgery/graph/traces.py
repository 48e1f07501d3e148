"""What a model's own forward does in a call, traced: once for all variants of the model that are made together."""

from collections import OrderedDict
from collections.abc import Hashable

import torch
from torch import nn

from surgery.calls.example_inputs import ExampleCall, example_call
from surgery.graph.removed_blocks import RemovedBlocks
from surgery.plan.plan import Plan
from surgery.tracing.arguments import FlatCall
from surgery.tracing.guards import key_of_call, sizes_of_call
from surgery.tracing.tracer import TracedForward, trace_forward
from surgery.tracing.wrappers import innermost

MAX_TRACES = 8  # the branches of guidance and the last batch, with few ways to open inner stacks


class Traces:
    """At most `num` traced forwards; those that were not asked for longest make room."""

    def __init__(self, num: int = MAX_TRACES) -> None:
        self.num = num
        self.held: OrderedDict[Hashable, TracedForward] = OrderedDict()
        self.examples: dict[int, ExampleCall | None] = {}

    def example(self, model: nn.Module) -> ExampleCall | None:
        """Inputs of the one model that all variants are made of; None where none are known."""
        if not self.num:
            return example_call(model)
        if id(model) not in self.examples:
            self.examples = {id(model): example_call(model)}
        return self.examples[id(model)]

    def trace(
        self,
        variant: nn.Module,
        removed: RemovedBlocks,
        call: FlatCall,
        objects: tuple[str, ...],
        stacks: tuple[str, ...],
        *,
        reads_contents: bool = False,
    ) -> TracedForward:
        """The forward of the model that a variant was made of, in a call: of any of its variants if they are alike.

        What hangs on the contents of the call is traced anew. `stacks` are opened where they are inside submodules.

        Raises:
            TraceError, RefusedError, InternalsError: as `trace_forward`.
        """
        key = (key_of_call(variant, call, objects), sizes_of_call(call), stacks)
        if key in self.held:
            self.held.move_to_end(key)
            return self.held[key]
        tensors = [value for value in call.inputs if isinstance(value, torch.Tensor)]
        device = tensors[0].device if tensors else torch.device("cpu")
        traced = trace_forward(
            lambda: removed.whole_model(variant, device, computing_dtype(call)),
            call,
            innermost(removed.original_class.forward),
            contents_of=variant if reads_contents else None,
            stacks=stacks,
        )
        if self.num and not traced.reads_contents:
            self.held[key] = traced
            while len(self.held) > self.num:
                self.held.popitem(last=False)
        return traced


def edited_stacks(plan: Plan) -> tuple[str, ...]:
    """The stacks whose blocks do not all run once, in order and unscaled."""
    return tuple(schedule.stack for schedule in plan.schedules if not schedule.is_identity)


def computing_dtype(call: FlatCall) -> torch.dtype:
    """That of the first tensor of a call that holds no whole numbers."""
    floating = (value.dtype for value in call.inputs if isinstance(value, torch.Tensor) and value.is_floating_point())
    return next(floating, torch.get_default_dtype())
