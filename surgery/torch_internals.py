"""What torch promises to nobody and this package uses all the same. Nothing else of the package reaches such names.

Registries of modules (`_parameters`, `_buffers`), storages and trees have public ways by now, which are used.
"""

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import BaseTorchFunctionMode, TorchFunctionMode

from surgery.internals import PrivateName, require

TRACE = "trace a model (inspect and check of one that is not known yet, and all that runs a variant)"
HOOK = "_hook"  # in the name of every registry of hooks
TRACER_METHODS = {
    "create_args_for_root": ("root_fn", "is_module", "concrete_args"),
    "getattr": ("attr", "attr_val", "parameter_proxy_cache"),
}
FREED = re.compile(r";  (?:\w+ = )+None$", re.MULTILINE)


def _new_fake_mode() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    require(hasattr(mode, "from_tensor"), "it makes no fake tensors of given ones")
    return mode


def _check_tracer_methods() -> None:
    for name, parameters in TRACER_METHODS.items():
        found = tuple(inspect.signature(getattr(fx.Tracer, name)).parameters)[1:]
        require(found == parameters, f"{name} takes {', '.join(found)}")


@functools.cache
def _hook_registries() -> tuple[str, ...]:
    state = vars(nn.Module())
    found = tuple(name for name, value in state.items() if HOOK in name and isinstance(value, dict))
    require({"_forward_hooks", "_forward_pre_hooks"} <= set(found), "a new module has no registries of hooks")
    return found


def _children_registry() -> str:
    parent = nn.Module()
    parent.add_module("child", child := nn.Module())
    require(vars(parent)["_modules"] == {"child": child}, "it does not hold the children of a module")
    return "_modules"


def _freeing_ends() -> re.Pattern[str]:
    graph = fx.Graph()
    graph.output(graph.call_method("neg", (graph.call_method("abs", (graph.placeholder("x"),)),)))
    require(FREED.search(graph.python_code("self").src) is not None, "lines of code end in another way")
    return FREED


def _version_attribute() -> str:
    name = "_version"
    require(hasattr(torch.Tensor, name), "a tensor does not count how often it was changed")
    return name


@functools.cache
def _current_mode() -> Callable[[], TorchFunctionMode | None]:
    from torch.overrides import _get_current_function_mode

    current: Callable[[], TorchFunctionMode | None] = _get_current_function_mode
    with BaseTorchFunctionMode() as mode:
        require(current() is mode, "it does not return the innermost mode")
    return current


def _guards_attribute() -> str:
    name = "_guards_code"
    require(name in torch.export.ExportedProgram.__annotations__, "a program has no such attribute")
    return name


# Tensors with a device and without memory. The meta device is public, but forgets the device. A public fake mode, once
# torch has one, would replace it.
FAKE_TENSORS = PrivateName(
    "torch",
    "torch._subclasses.fake_tensor.FakeTensorMode",
    since="2.0",
    purpose="trace a model that has weights (apply, generate, evaluate, profile)",
    look_up=_new_fake_mode,
)

# Methods of a documented class that torch.fx marks as not backward compatible. fx.wrap and concrete_args are no way
# round: inputs must be placeholders that carry values. torch.export traces from other ends.
TRACER = PrivateName(
    "torch",
    "torch.fx.Tracer.create_args_for_root and getattr as they were",
    since="1.13",
    purpose=TRACE,
    look_up=_check_tracer_methods,
)

# The public way to get rid of a hook is the handle that its owner has. A public list of a module's hooks would replace
# it.
HOOKS = PrivateName(
    "torch",
    "torch.nn.Module._forward_hooks and its kind",
    since="1.13",
    purpose=TRACE,
    look_up=_hook_registries,
)

# All ways to name a child of a module go through the module itself, which must not be changed here. A forward that is
# traced whole does not need it.
CHILDREN = PrivateName(
    "torch",
    "torch.nn.Module._modules",
    since="1.13",
    purpose="run variants whose forward can't be traced whole",
    look_up=_children_registry,
)

# Comparing contents would be the public way, and tensors without memory have none.
VERSION = PrivateName(
    "torch",
    "torch.Tensor._version",
    since="0.4",
    purpose=TRACE,
    look_up=_version_attribute,
)

# The conditions on sizes of an exported program. `str(program)` shows ranges of symbols, and not which input has them.
EXPORT_GUARDS = PrivateName(
    "torch",
    "torch.export.ExportedProgram._guards_code",
    since="2.9",
    purpose="tell which sizes of an exported program may change from call to call (compile --format pt2 says none may)",
    look_up=_guards_attribute,
    is_optional=True,
)

# A mode's own `__exit__` takes away the innermost one, whichever that is: it may be a `with torch.device(...)`.
CURRENT_MODE = PrivateName(
    "torch",
    "torch.overrides._get_current_function_mode",
    since="2.0",
    purpose="run a block without a look at each shape that it reads (tracing takes longer with it)",
    look_up=_current_mode,
    is_optional=True,
)

# torch.fx writes into its code where a value is used for the last time, and has no switch for it.
FREEING_ENDS = PrivateName(
    "torch",
    "the `;  value = None` that torch.fx ends lines of code with",
    since="1.13",
    purpose="print rewritten code without it (check --show code)",
    look_up=_freeing_ends,
    is_optional=True,
)


@contextlib.contextmanager
def fake_tensors() -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Within it, new tensors take no memory and keep their device; yields what makes a real tensor such a one.

    Raises:
        InternalsError: this version of torch has no such tensors.
    """
    with FAKE_TENSORS.find() as mode:
        yield mode.from_tensor


@contextlib.contextmanager
def without_mode(mode: TorchFunctionMode) -> Iterator[None]:
    """Within it, a mode of torch functions is not asked; one that is not the innermost is left where it is."""
    if CURRENT_MODE.failure or CURRENT_MODE.find()() is not mode:
        yield
        return
    mode.__exit__(None, None, None)
    try:
        yield
    finally:
        mode.__enter__()


class CallTracer(fx.Tracer):
    """A torch.fx tracer of one call: what torch.fx may change is met here, and goes to methods with names of our own.

    Raises:
        InternalsError: this version of torch calls them in another way.
    """

    def __init__(self) -> None:
        TRACER.find()
        super().__init__()

    def begin(self) -> Callable[[nn.Module], Any]:
        """Make the placeholders; returns the forward that is traced, as a function of the model."""
        raise NotImplementedError

    def read_attribute(self, value: Any, read: Callable[[], Any]) -> Any:
        """What the forward gets for an attribute of a module; `read` is what torch.fx gives, a proxy for a tensor."""
        raise NotImplementedError

    def create_args_for_root(
        self,
        root_fn: Any,  # noqa: ARG002  (torch.fx's signature)
        is_module: bool,  # noqa: ARG002  (torch.fx's signature)
        concrete_args: Any = None,  # noqa: ARG002  (torch.fx's signature)
    ) -> tuple[Callable[..., Any], list[Any]]:
        return self.begin(), [self.root]

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return self.read_attribute(attr_val, functools.partial(super().getattr, attr, attr_val, parameter_proxy_cache))


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether something listens to the calls of a module."""
    state = vars(module)
    return any(state.get(name) for name in _about_forward(HOOKS.find()))


@functools.cache
def _about_forward(registries: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in registries if "forward" in name)


def drop_hooks_(module: nn.Module) -> None:
    """Take all hooks from a module, but not from others that share its registries."""
    state = module.__dict__
    for name in HOOKS.find():
        if state.get(name):
            state[name] = type(state[name])()


def twin_with_own_children(module: nn.Module) -> nn.Module:
    """Another object with the same state, in which children can be exchanged; all else that is set in it is shared."""
    children = CHILDREN.find()
    twin = type(module).__new__(type(module))
    twin.__dict__ = {**module.__dict__, children: dict(module.__dict__[children])}
    return twin


def times_changed(tensor: torch.Tensor) -> int:
    """How often a tensor, or another that sees its memory, was changed in place; 0 for one that does not count it."""
    times: int = 0 if tensor.is_inference() else getattr(tensor, VERSION.find())
    return times


def export_guards(program: torch.export.ExportedProgram) -> list[str]:
    """The conditions on its inputs, as Python; one that never holds where this version of torch keeps none."""
    if EXPORT_GUARDS.failure:
        return ["False"]
    guards: list[str] = getattr(program, EXPORT_GUARDS.find())
    return guards


def without_freeing(code: str) -> str:
    """Generated code without the ends of lines that free values which are used no more."""
    return FREED.sub("", code)
