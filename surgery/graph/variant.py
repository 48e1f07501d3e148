"""A model under a plan: a copy that shares all weights, is of the original's class, and runs rewritten graphs."""

import contextlib
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Hashable, Mapping
from typing import Any, NoReturn

import torch
from torch import fx, nn

from surgery.anatomy.parts import Anatomy
from surgery.errors import PartialTraceWarning, RefusedError, TraceError
from surgery.graph.checkpointing import mark_checkpointed_calls_, restore_checkpointed_calls_
from surgery.graph.held_graphs import CompiledForward, HeldGraph, HeldGraphs
from surgery.graph.partial import trace_partial_forward
from surgery.graph.replace import build_replacement
from surgery.graph.rewrite import rewrite_graph
from surgery.plan.plan import Plan
from surgery.torch_internals import without_freeing
from surgery.tracing.arguments import FlatCall, flatten_call, parameters_of
from surgery.tracing.clone import bare_clone, clone_module, share_tensor, without_memory
from surgery.tracing.example_inputs import example_call
from surgery.tracing.guards import GuardViolation, key_of_call, sizes_of_call
from surgery.tracing.tracer import trace_forward
from surgery.tracing.wrappers import innermost, rewrap

Means = Mapping[str, Mapping[str, torch.Tensor]]
IN_PART = "its stacks are traced from their first block to their last, the rest of its forward runs as it is"


class RewrittenForward:
    """The graphs of one variant, by what their calls take for granted, and what it takes to trace another.

    Held by the variant; knows it only as an argument, so that copies of a variant work on their own weights.
    """

    def __init__(self, original_class: type[nn.Module], plan: Plan, removed: Mapping[str, nn.Module]) -> None:
        self.original_class = original_class
        self.plan = plan
        self.removed = dict(removed)
        self.inner = innermost(original_class.forward)
        self.parameters = parameters_of(self.inner)
        self.graphs = HeldGraphs()
        self.first_source: str | None = None
        self.weights_dtype: torch.dtype | None = None
        self.keeps_removed_blocks = True

    def run(self, variant: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the graph that fits this call; trace one where there is none."""
        call = flatten_call(args, kwargs, self.parameters)
        key = key_of_call(variant, call)
        found = self.graphs.find(key) or self.graphs.find((key, sizes_of_call(call)))
        if found is None:
            found = self.trace(variant, call)
        try:
            return found(variant, *call.inputs)
        except GuardViolation:
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

        What can't be traced whole is traced in part, on real calls only: such a forward depends on their contents.
        """
        try:
            graph, num_decisions = self.rewritten_graph(variant, call)
        except TraceError as failure:
            if is_example:
                raise
            return self.trace_in_part(variant, call, str(failure))
        key = key_of_call(variant, call)
        if num_decisions:
            key = (key, sizes_of_call(call))
        code = graph.python_code("self", verbose=False)
        return self.keep(variant, key, compile_graph(graph), code.src, _names_in_graph(graph))

    def trace_in_part(self, variant: nn.Module, call: FlatCall, failure: str) -> CompiledForward:
        """The forward as it is around rewritten graphs of its stacks, because it can't be traced whole."""
        whole = self.whole_model(variant, torch.device("meta"))
        try:
            partial = trace_partial_forward(
                whole,
                variant,
                call,
                self.plan,
                original_class=self.original_class,
                inner=self.inner,
                compile_graph=compile_graph,
            )
        except TraceError as error:
            raise TraceError(f"{failure}\nand its stacks can't be traced alone: {error}") from error
        warnings.warn(f"{failure}; {IN_PART}", PartialTraceWarning, stacklevel=4)
        source = f"# {failure}\n# {IN_PART}\n{partial.source}"
        names = frozenset().union(*(_names_in_graph(part.graph) for part in partial.regions))
        return self.keep(variant, key_of_call(variant, call), partial, source, names)

    def keep(
        self, variant: nn.Module, key: Hashable, forward: CompiledForward, source: str, names: frozenset[str]
    ) -> CompiledForward:
        """Keep what was traced for calls of this key; blocks that no graph names are let go."""
        if self.keeps_removed_blocks:
            _remove_blocks(variant, self.plan, names)
            self.keeps_removed_blocks = False
        self.first_source = self.first_source or source
        self.graphs.keep(key, HeldGraph(forward, getattr(variant, "config", None)))
        return forward

    def rewritten_graph(self, variant: nn.Module, call: FlatCall) -> tuple[fx.Graph, int]:
        """The rewritten graph for this call, and how many decisions it checks."""
        tensors = [value for value in call.inputs if isinstance(value, torch.Tensor)]
        device = tensors[0].device if tensors else torch.device("cpu")
        traced = trace_forward(lambda: self.whole_model(variant, device), call, self.inner)
        schedules = {schedule.stack: schedule for schedule in self.plan.schedules}
        graph = rewrite_graph(traced.graph, traced.model, schedules)
        restore_checkpointed_calls_(graph)
        return graph, traced.num_decisions

    def whole_model(self, variant: nn.Module, device: torch.device) -> nn.Module:
        """The variant with stand-ins for its removed blocks: what the original class's forward expects.

        Weights that are not on `device`, where the call is (offloaded ones), are stood in for as well.
        """
        weight = next(variant.parameters(), None)

        def stand_in(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=device)
            return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made

        def with_present_type(tensor: torch.Tensor) -> torch.Tensor:
            if weight is not None and tensor.dtype == self.weights_dtype:
                return stand_in(tensor, weight.dtype)
            return stand_in(tensor, tensor.dtype)

        def on_device(tensor: torch.Tensor) -> torch.Tensor:
            return share_tensor(tensor) if tensor.device == device else stand_in(tensor, tensor.dtype)

        whole = bare_clone(variant, on_device)
        whole.__class__ = self.original_class

        for schedule in self.plan.schedules:
            stack = whole.get_submodule(schedule.stack)
            for index in range(schedule.num_blocks):
                removed = self.removed.get(f"{schedule.stack}.{index}")
                block = stack.get_submodule(str(index)) if removed is None else bare_clone(removed, with_present_type)
                _put_last(stack, str(index), block)
        mark_checkpointed_calls_(whole)
        return whole


def compile_graph(graph: fx.Graph) -> CompiledForward:
    """The function of a graph's own code, as torch.fx.GraphModule runs it: `forward(model, *inputs)`."""
    code = graph.python_code("self", verbose=False)
    namespace: dict[str, Any] = dict(code.globals)
    exec(code.src, namespace)
    compiled: CompiledForward = namespace["forward"]
    return compiled


def source_of_variant(variant: nn.Module) -> str:
    """The Python code of the rewritten forward of a variant, as it was traced first.

    A variant without weights is traced for a call on the CPU, so that the code names no meta device.

    Raises:
        RefusedError: it has not run yet, and its class has no example inputs, or can't be traced whole.
    """
    rewritten: RewrittenForward = variant.__dict__["_surgery"]
    example = example_call(variant)
    if example is not None and any(value.is_meta for value in variant.parameters()):
        with contextlib.suppress(TraceError), torch.no_grad():
            call = flatten_call((), example.kwargs, rewritten.parameters)
            call = dataclasses.replace(call, inputs=tuple(_on_cpu(value) for value in call.inputs))
            return _readable(rewritten.rewritten_graph(variant, call)[0].python_code("self", verbose=False).src)
    if rewritten.first_source is None:
        fact = "has no example inputs" if example is None else "can't be traced whole"
        raise RefusedError(f"{type(variant).__name__} {fact}; its graph is known once it has run")
    return _readable(rewritten.first_source)


def _readable(source: str) -> str:
    return without_freeing(source).strip() + "\n"


def _on_cpu(value: Any) -> Any:
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value


def _refuse_to_save(self: nn.Module, *_args: Any, **_kwargs: Any) -> NoReturn:
    raise RefusedError(
        f"this {type(self).__name__} runs a rewritten graph; saved as it is, it would load with random weights in the "
        "gaps. `surgery compile SPEC --to checkpoint --out DIR` writes a model that from_pretrained loads, --to graph "
        "a folder that surgery.load_variant(DIR) loads"
    )


@functools.cache
def variant_class(original: type[nn.Module]) -> type[nn.Module]:
    """A subclass of the original's class with its name, whose forward runs rewritten graphs.

    The decorators of the original forward run on every call, around the graph.

    Raises:
        TraceError: a decorator of the forward can't be rebuilt.
    """

    @functools.wraps(innermost(original.forward))
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        rewritten: RewrittenForward = self.__dict__["_surgery"]
        return rewritten.run(self, args, kwargs)

    members = {
        "forward": rewrap(original.forward, forward),
        "save_pretrained": _refuse_to_save,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
    }
    return type(original.__name__, (original,), members)


def build_variant(model: nn.Module, plan: Plan, anatomy: Anatomy, means: Means | None = None) -> nn.Module:
    """The model under `plan`. The original is left as it is; all weights are shared with it.

    `means` holds, for each replaced component by dotted name, one vector (channels,) a stream.

    Raises:
        RefusedError: the plan can't be done on this model's graph.
        TraceError: the forward can't be traced.
    """
    original_class: Any = type(model)  # nn.Module is typed as unhashable
    assert not is_variant(model), "apply refuses variants"
    variant = clone_module(model)
    variant.__class__ = variant_class(original_class)
    _rebind_forward(variant, original_class)
    removed = {
        f"{schedule.stack}.{index}": bare_clone(model.get_submodule(f"{schedule.stack}.{index}"), without_memory)
        for schedule in plan.schedules
        for index in schedule.removed
    }
    rewritten = RewrittenForward(original_class, plan, removed)
    rewritten.weights_dtype = next((value.dtype for value in model.parameters()), None)
    _replace_components(variant, plan, anatomy, means or {})
    variant.__dict__["_surgery"] = rewritten
    example = example_call(variant)
    if example is not None:  # otherwise at the first run
        _trace_example(variant, flatten_call((), example.kwargs, rewritten.parameters))
    return variant


def _trace_example(variant: nn.Module, call: FlatCall) -> None:
    """Trace a variant before its first run; what can't be traced whole waits for that."""
    with contextlib.suppress(TraceError), torch.no_grad():
        variant.__dict__["_surgery"].trace(variant, call, is_example=True)


def is_variant(model: nn.Module) -> bool:
    """Whether a model is the result of surgery."""
    return isinstance(model.__dict__.get("_surgery"), RewrittenForward)


def _rebind_forward(variant: nn.Module, original_class: type[nn.Module]) -> None:
    """Instance attributes that hold the original class's forward (accelerate's `_old_forward`) get the variant's."""
    for name, value in list(variant.__dict__.items()):
        if inspect.ismethod(value) and value.__func__ is original_class.forward:
            variant.__dict__[name] = type(variant).forward.__get__(variant)


def _replace_components(variant: nn.Module, plan: Plan, anatomy: Anatomy, means: Means) -> None:
    for replaced in plan.replacements:
        stack = anatomy.find_stack(replaced.stack)
        assert stack is not None, "a plan is made for an anatomy"
        component = stack.kind(replaced.index).find_component(replaced.component)
        assert component is not None, "a plan is made for an anatomy"
        if replaced.index in plan.schedule(replaced.stack).removed:
            continue
        parent, _, name = replaced.path.rpartition(".")
        original = variant.get_submodule(replaced.path)
        stand_in = build_replacement(replaced.kind, component, original, means.get(replaced.path))
        variant.get_submodule(parent).add_module(name, stand_in.train(original.training))


def _names_in_graph(graph: fx.Graph) -> frozenset[str]:
    """The modules and weights that a graph names."""
    return frozenset(str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr"))


def _remove_blocks(variant: nn.Module, plan: Plan, named: frozenset[str]) -> None:
    """Take the blocks that never run out of their stacks; the others keep their names.

    What the graph names inside a removed block (DiT reads its first block's embedding) stays, alone.
    """
    for schedule in plan.schedules:
        stack = variant.get_submodule(schedule.stack)
        for index in schedule.removed:
            prefix = f"{schedule.stack}.{index}."
            block = stack.get_submodule(str(index))
            kept = [name.removeprefix(prefix) for name in named if name.startswith(prefix)]
            delattr(stack, str(index))
            if kept:
                stack.add_module(str(index), _only(block, kept))


def _put_last(parent: nn.Module, name: str, child: nn.Module) -> None:
    """Make a module the last child of another, in the place of a child of this name if there is one."""
    if hasattr(parent, name):
        delattr(parent, name)
    parent.add_module(name, child)


def _only(block: nn.Module, paths: list[str]) -> nn.Module:
    """A bare module with these submodules and weights of `block` under their names."""
    bare = nn.Module()
    bare.training = block.training
    for path in paths:
        *parents, last = path.split(".")
        here = bare
        for parent in parents:
            if not hasattr(here, parent):
                here.add_module(parent, nn.Module())
            here = here.get_submodule(parent)
        owner = block.get_submodule(".".join(parents))
        value = getattr(owner, last)
        if isinstance(value, nn.Module):
            here.add_module(last, value)
        elif isinstance(value, nn.Parameter):
            here.register_parameter(last, value)
        else:
            here.register_buffer(last, value)
    return bare
