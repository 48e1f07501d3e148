"""A model and one call -> a torch.fx graph of its forward with all submodules as leaves, each node with its value."""

import contextlib
import dataclasses
import operator
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from surgery.errors import InternalsError, TraceError
from surgery.torch_internals import CallTracer, fake_tensors, without_mode
from surgery.tracing.arguments import FlatCall, is_number, unflatten_call
from surgery.tracing.contents import Contents
from surgery.tracing.factories import recorded_factories
from surgery.tracing.guards import expect
from surgery.tracing.in_place import changed_copy, is_name_in_place, with_item, works_in_place
from surgery.tracing.kept_values import refuse_kept_inputs
from surgery.tracing.memo import BlockMemo, is_block_path, map_tensors, versions_of
from surgery.tracing.own_gradients import functions_by_code, refuse_own_gradients
from surgery.tracing.own_objects import Path, held_in_objects, is_plain_object
from surgery.tracing.places import current_place
from surgery.tracing.steps import owners_of
from surgery.tracing.values import ValueProxy, has_proxy, storage_of, value_of

ONE_TRACE_AT_A_TIME = threading.RLock()  # torch.fx patches nn.Module for the whole process
MakeFake = Callable[[torch.Tensor], torch.Tensor]
Call = tuple[nn.Module, FlatCall]
CHANGES_INPUTS = "changes inputs"  # in the meta of a module's call: in place, the tensors that it is given
FIXED_LENGTH_OPERATIONS = ("chunk", torch.chunk)  # as long as they are asked to be, but for tiny tensors


@dataclass(frozen=True)
class TracedForward:
    """The graph of one forward, and the model that it was traced on; nodes carry their value in `meta["value"]`.

    `num_decisions` counts the Python decisions on sizes or numbers that the graph checks; `reads_contents` says that
    some may hang on what is in the call's tensors.
    """

    graph: fx.Graph
    model: nn.Module
    num_decisions: int
    reads_contents: bool = False


class ContentsNeededError(TraceError):
    """An operation failed on tensors without contents; on the call's real ones it may not."""


class ValueTracer(CallTracer):
    """Traces one call of a forward; the values that flow through it are those of the call.

    `opened` are the submodules whose own forwards are traced with it.
    """

    proxy_buffer_attributes = True

    def __init__(
        self,
        call: FlatCall,
        forward: Callable[..., Any],
        make_fake: MakeFake,
        contents_of: Call | None,
        opened: frozenset[str],
    ) -> None:
        super().__init__()
        self.opened = opened
        self.call = call
        self.make_fake = make_fake
        self.contents_of = contents_of
        self.contents: Contents | None = None
        self.needs_contents = False
        self.forward = forward
        self.code = getattr(forward, "__code__", None)
        self.functions = functions_by_code()
        self.running_leaf = False
        self.recorder = FactoryRecorder(self)
        self.thread = threading.get_ident()
        self.num_decisions = 0
        self.memo = BlockMemo()
        self.objects: dict[int, fx.Node] = {}  # of the call, by identity
        self.held: dict[int, tuple[Path, torch.Tensor]] = {}  # in objects of the model, by identity
        self.read: dict[Path, fx.Node] = {}
        self.aliases: dict[fx.Node, weakref.WeakSet[ValueProxy]] = {}

    # What torch.fx asks of a tracer.

    def begin(self) -> Callable[[nn.Module], Any]:
        """Placeholders for tensors, numbers and objects, which are handed on as they are; the rest is constant."""
        inputs, placeholders = [], []
        for name, value in zip(self.call.names, self.call.inputs, strict=True):
            node = self.create_node("placeholder", name, (), {}, name=name)
            node.meta["value"] = value
            is_followed = isinstance(value, torch.Tensor) or is_number(value)
            if not is_followed:
                self.objects[id(value)] = node
            inputs.append(self.proxy(node) if is_followed else value)
            placeholders.append(node)
        if self.contents_of is not None:
            model, call = self.contents_of
            self.contents = Contents(model, dict(zip(placeholders, call.inputs, strict=True)))
        held = ((path, value) for path, value in held_in_objects(self.root) if isinstance(value, torch.Tensor))
        self.held = {id(value): (path, value) for path, value in held}
        args, kwargs = unflatten_call(self.call.structure, inputs)
        return lambda root: self.forward(root, *args, **kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002  (torch.fx's signature)
        """Every submodule is a leaf but those that are opened."""
        return module_qualified_name not in self.opened

    def proxy(self, node: fx.Node) -> ValueProxy:
        return ValueProxy(node, self)

    def create_node(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
    ) -> fx.Node:
        """A node that knows where in the forward's code it was made."""
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        refuse_own_gradients(self.functions, self.code)
        node.meta["place"] = current_place(self.code)
        return node

    def create_arg(self, a: Any) -> Any:
        if issubclass(type(a), fx.Proxy):
            return a.node
        if id(a) in self.objects:
            return self.objects[id(a)]
        if id(a) in self.held:
            return self.read_held(self.held[id(a)][0])
        if isinstance(a, torch.Tensor) and not self.is_attribute(a):
            raise TraceError("it uses a tensor that is neither an input nor an attribute of the model")
        if dataclasses.is_dataclass(a) and not isinstance(a, type):  # diffusers' outputs are dicts as well
            fields = {field.name: self.create_arg(getattr(a, field.name)) for field in dataclasses.fields(a)}
            return self.create_node("call_function", type(a), (), fields)
        return super().create_arg(a)

    def is_attribute(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is a weight, a buffer or a plain attribute of the model."""
        held = (*self.root.parameters(), *self.root.buffers())
        plain = (value for module in self.root.modules() for value in vars(module).values())
        return any(tensor is value for value in (*held, *plain))

    def read_held(self, path: Path) -> fx.Node:
        """The node of what is found in the objects of the model along a path."""
        if path not in self.read:
            *way, last = path
            if way:
                owner = self.read_held(tuple(way))
                read: Any = getattr if is_plain_object(owner.meta["value"]) else operator.getitem
                node = self.create_node("call_function", read, (owner, last), {})
                node.meta["value"] = read(owner.meta["value"], last)
            else:
                node = self.create_node("get_attr", str(last), (), {})
                node.meta["value"] = vars(self.root)[str(last)]
            self.read[path] = node
        return self.read[path]

    def read_attribute(self, value: Any, read: Callable[[], Any]) -> Any:
        if not self.is_traced_here():
            return value
        found = read()
        if issubclass(type(found), ValueProxy) and "value" not in found.node.meta:
            found.node.meta["value"] = value
        return found

    def is_traced_here(self) -> bool:
        """Whether the running code is the forward that is traced: not a submodule of it, not another thread."""
        return not self.running_leaf and threading.get_ident() == self.thread

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not self.is_traced_here():
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        if not self.is_leaf_module(m, path):
            return forward(*args, **kwargs)
        given = [value_of(args), value_of(kwargs)]
        before = versions_of(given)
        try:
            with self.concretely(), without_mode(self.recorder):
                result = self.run_module(path, m, forward, *given)
        except Exception as error:
            result = self.run_on_contents("call_module", path, args, kwargs, error)
            self.memo.keep(self.memo.key(m, *given), result, given)
        called = self.record("call_module", path, args, kwargs, result)
        if versions_of(given) != before:
            if result is None:
                raise TraceError(f"{path} only changes its inputs in place, which a graph can't follow")
            called.node.meta[CHANGES_INPUTS] = True
        return called

    def create_proxy(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
        proxy_factory_fn: Any = None,  # noqa: ARG002  (torch.fx's signature)
    ) -> Any:
        """Run the operation on the values, and record it."""
        if kind == "get_attr":
            return super().create_proxy(kind, target, args, kwargs, name, type_expr)
        if kind == "call_function" and target is operator.setitem:
            return self.assign_item(*args)
        if kind == "call_function" and works_in_place(target, args, kwargs):
            name = target.__name__
            raise TraceError(f"it changes a tensor in place by the function {name}, which a graph can't follow")
        return self.record(kind, target, args, kwargs, self.run_operation(kind, target, args, kwargs))

    def run_operation(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a function or method on the values of its arguments."""
        values, named = value_of(args), value_of(kwargs)
        try:
            with self.concretely():
                if kind == "call_method":
                    return getattr(values[0], target)(*values[1:], **named)
                return target(*values, **named)
        except Exception as error:
            return self.run_on_contents(kind, target, args, kwargs, error)

    def run_on_contents(self, kind: str, target: Any, args: Any, kwargs: Any, failure: Exception) -> Any:
        """The result of what has failed on tensors without contents, on the call's real ones; as values, without."""
        self.needs_contents = True
        if self.contents is None:
            raise failure
        operands = self.create_arg(args), self.create_arg(kwargs)
        with self.concretely():
            try:
                return map_tensors(self.make_fake, self.contents.run(kind, target, *operands))
            except TraceError:
                raise
            except Exception:
                raise failure from None

    def run_module(self, path: str, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The result of a module on values; blocks of one kind are run once, unless they change what they are given."""
        if not is_block_path(path):
            return forward(*args, **kwargs)
        key = self.memo.key(m, args, kwargs)
        try:
            return self.memo.recall(key)
        except KeyError:
            before = versions_of([args, kwargs])
            result = forward(*args, **kwargs)
        if versions_of([args, kwargs]) == before:
            self.memo.keep(key, result, [args, kwargs])
        return result

    # What proxies and the recorder ask of this tracer.

    def record(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> Any:
        """A node with its value; what has no use as a node (None, dtypes, strings) is returned as it is."""
        if result is None or isinstance(result, (str, torch.dtype, torch.device, torch.layout)):
            return result
        node = self.create_node(kind, target, self.create_arg(args), self.create_arg(dict(kwargs)))
        node.meta["value"] = result
        return self.proxy(node)

    def record_function(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run and record a plain function."""
        return self.create_proxy("call_function", function, args, {})

    def record_factory(self, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a factory of torch: recorded where a size or number is traced, otherwise as it is."""
        if self.is_traced_here() and (has_proxy(args) or has_proxy(kwargs)):
            return self.create_proxy("call_function", factory, args, kwargs)
        return factory(*args, **kwargs)

    def call_method_of(self, receiver: ValueProxy, name: str, *args: Any, **kwargs: Any) -> Any:
        """A method call; one that works in place (`add_`) is done on a copy that takes the receiver's place."""
        if not is_name_in_place(name):
            return self.create_proxy("call_method", name, (receiver, *args), kwargs)
        self.refuse_aliases(receiver)
        receiver.node = self.create_proxy("call_function", changed_copy, (receiver, name, *args), kwargs).node
        return receiver

    def assign_item(self, receiver: ValueProxy, index: Any, update: Any) -> None:
        """`receiver[index] = update`, as an operation that returns the changed copy."""
        changed = self.create_proxy("call_function", with_item, (receiver, index, update), {})
        self.refuse_aliases(receiver)
        receiver.node = changed.node

    def refuse_aliases(self, receiver: ValueProxy) -> None:
        """An in-place change may be recorded as a copy only if no living value sees the same memory."""
        storage = storage_of(receiver.value)
        for node, proxies in self.aliases.items():
            others = [proxy for proxy in proxies if proxy is not receiver]
            if others and storage is not None and storage_of(node.meta.get("value")) == storage:
                raise TraceError(f"it changes `{receiver.node}` in place while `{node}` still looks at the same memory")

    def register_alias(self, proxy: ValueProxy) -> None:
        self.aliases.setdefault(proxy.node, weakref.WeakSet()).add(proxy)

    def decide(self, proxy: ValueProxy, kind: Callable[[Any], Any]) -> Any:
        """The value as `kind`, with a check in the graph that it stays so."""
        number = proxy if type(proxy.value) is kind else self.record_function(kind, (proxy,))
        value = number.value
        self.create_node("call_function", expect, (number.node, value), {})
        self.num_decisions += 1
        return value

    def decide_length(self, proxy: ValueProxy) -> int:
        """The length of a tuple that an operation made; it may depend on sizes, so the graph checks it."""
        length = len(proxy.value)
        if isinstance(proxy.value, torch.Size):
            self.check_rank(proxy, length)
            return length
        number = self.create_node("call_function", len, (proxy.node,), {})
        number.meta["value"] = length
        self.create_node("call_function", expect, (number, length), {})
        self.num_decisions += proxy.node.target not in FIXED_LENGTH_OPERATIONS
        return length

    def check_rank(self, proxy: ValueProxy, rank: int) -> None:
        """Check a rank that the forward decides on, where it may hang on contents; the key of a call has all others."""
        if self.contents is not None and self.contents.are_read:
            number = self.create_node("call_function", rank_of, (proxy.node,), {})
            self.create_node("call_function", expect, (number, rank), {})

    def operate_in_place(self, receiver: ValueProxy, function: Callable[..., Any], method: str, other: Any) -> Any:
        """`receiver += other` and its like: in place for a tensor, a new value for a number."""
        if isinstance(receiver.value, torch.Tensor):
            return self.call_method_of(receiver, method, other)
        return self.record_function(function, (receiver, other))

    @contextlib.contextmanager
    def concretely(self) -> Iterator[None]:
        """Within it, modules and attributes behave as if nothing was traced."""
        before, self.running_leaf = self.running_leaf, True
        try:
            yield
        finally:
            self.running_leaf = before


class FactoryRecorder(TorchFunctionMode):
    """Records torch functions that make tensors from no proxy: torch.arange, or arithmetic on a plain attribute."""

    def __init__(self, tracer: ValueTracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.tracer.is_traced_here():
            return func(*args, **kwargs)
        if has_proxy(args) or has_proxy(kwargs):
            return func(*args, **kwargs)  # reaches Proxy.__torch_function__
        result = func(*args, **kwargs)
        if not isinstance(result, torch.Tensor):
            return result
        return self.tracer.record("call_function", func, args, kwargs, result)


def rank_of(value: Any) -> int:
    """The number of dimensions of a tensor or a shape."""
    return len(value.shape) if isinstance(value, torch.Tensor) else len(value)


def without_contents(inputs: Sequence[Any]) -> contextlib.AbstractContextManager[MakeFake]:
    """What makes inputs fake tensors; for those on the meta device nothing needs to be made."""
    tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
    if tensors and all(tensor.is_meta for tensor in tensors):
        return contextlib.nullcontext(lambda tensor: tensor)
    return fake_tensors()


def trace_forward(
    build_model: Callable[[], nn.Module],
    call: FlatCall,
    forward: Callable[..., Any],
    *,
    contents_of: nn.Module | None = None,
    stacks: Iterable[str] = (),
) -> TracedForward:
    """Trace `forward(model, ...)` for one call. Nothing of the model runs on real data; no memory is taken.

    Submodules are not looked into, but for those that run the blocks of one of `stacks`.

    `build_model` is called where tensors are fake, so that it may make weights that take no memory. Given the model
    with its real weights (`contents_of`), what the forward decides on contents is worked out on real tensors.

    Raises:
        ContentsNeededError: the forward decides on the contents of a tensor, and `contents_of` is not given.
        TraceError: it does what a graph can't hold; the text names the line of code.
        RefusedError: it keeps what it makes of its inputs for the next call.
        InternalsError: this version of torch has not what it takes.
    """
    with ONE_TRACE_AT_A_TIME, without_contents(call.inputs) as make_fake:
        inputs = tuple(make_fake(value) if isinstance(value, torch.Tensor) else value for value in call.inputs)
        model = build_model()
        real = None if contents_of is None else (contents_of, call)
        tracer = ValueTracer(FlatCall(call.structure, inputs, call.names), forward, make_fake, real, owners_of(stacks))
        try:
            with recorded_factories(tracer.record_factory), tracer.recorder:
                graph = tracer.trace(model)
        except InternalsError:
            raise
        except Exception as error:  # whatever the traced code raises is the user's to read, with its place
            kind = ContentsNeededError if tracer.needs_contents and contents_of is None else TraceError
            raise kind(describe_failure(model, error)) from error
    refuse_kept_inputs(model)
    graph.lint()
    reads_contents = tracer.contents is not None and tracer.contents.are_read
    return TracedForward(graph, model, tracer.num_decisions, reads_contents)


def describe_failure(model: nn.Module, error: Exception) -> str:
    """Which line of the model's own code could not be traced, and why."""
    frames = traceback.extract_tb(error.__traceback__)
    source = sys.modules[type(model).__module__].__file__ if type(model).__module__ in sys.modules else None
    own = [frame for frame in frames if frame.filename == source]
    place = f"{own[-1].filename}:{own[-1].lineno}: `{own[-1].line}`" if own else "its forward"
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{type(model).__name__} can't be traced: {place}: {reason}"
