"""A pipeline with a variant that has windows, or two of them: it tells its transformers where each call stands."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from tqdm.auto import tqdm

from surgery.errors import InputError
from surgery.graph.same_name import subclass_of_same_name
from surgery.graph.split_rows import num_rows_of
from surgery.graph.variant import forward_of_variant, is_variant
from surgery.graph.windowed_forward import WindowedForward
from surgery.pipelines.guidance import UNCONDITIONAL, Guidance, find_guidance, transformers_of
from surgery.pipelines.probe_call import arguments_of_call, first_answer, key_of_probe, probe_call
from surgery.pipelines.replaced import replaced
from surgery.pipelines.sampler_clock import SamplerClock
from surgery.pipelines.standing import is_all_said, told_by
from surgery.pipelines.timestep_convention import convention_of
from surgery.plan.windowed import WindowedPlan
from surgery.tracing.arguments import parameters_of_module

_ASKING: ContextVar[bool] = ContextVar("asking", default=False)  # whether a pipeline is called to note how it calls
LAYOUTS = "_surgery"  # of a pipeline: the layouts of its guidance that were asked for, by call


def tell_windows_(pipe: Any) -> None:
    """Make a pipeline with a variant that has windows tell it where each of its calls stands."""
    own_class: Any = type(pipe)
    pipe.__class__ = telling_class(own_class)
    pipe.__dict__[LAYOUTS] = {}


@functools.cache
def telling_class(original: Any) -> type:
    """A subclass of a pipeline's class with its name; what it does is the same, and its transformers are told."""

    @functools.wraps(original.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with telling(self, args, kwargs):
            return original.__call__(self, *args, **kwargs)

    return subclass_of_same_name(original, {"__call__": call}, telling_class)


@contextmanager
def telling(pipe: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
    """Within it, the pipeline's transformers are told where their calls stand; nothing without windows (any more).

    Raises:
        InputError: a window goes by the unconditional branch, and guidance is off.
    """
    windows = [(model, _windows_of(model)) for model in map(_uncompiled, transformers_of(pipe))]
    plans = [plan for _, plan in windows if plan is not None]
    if not plans or _ASKING.get() or is_all_said():
        yield
        return
    with _asking(pipe):
        arguments = arguments_of_call(pipe, args, kwargs)
        guidance = _guidance_of(pipe, plans, arguments) if any(p.goes_by_branches for p in plans) else None
        convention = first_answer(functools.partial(convention_of, pipe), arguments)
    clock = SamplerClock(pipe, convention, guidance, max(plan.num_steps for plan in plans))
    models = [model for model, _ in windows]
    with told_by(clock.tell, models), _heard(clock, [model for model, plan in windows if plan is None]):
        yield


@contextmanager
def _heard(clock: SamplerClock, models: list[Any]) -> Iterator[None]:
    """Within it, the clock hears of the calls of these transformers, which ask it for nothing: steps count from the
    first call of a run, whichever of two transformers that is of."""

    def tell(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {**dict(zip(parameters_of_module(model), args, strict=False)), **kwargs}
        clock.tell(model, named, num_rows_of(next(iter(named.values()), None)))

    with ExitStack() as stack:
        for model in models:
            stack.callback(model.register_forward_pre_hook(tell, with_kwargs=True).remove)
        yield


@contextmanager
def _asking(pipe: Any) -> Iterator[None]:
    """Within it, the pipeline is called only to note how it calls; it shows nothing of that, and draws no numbers."""
    token = _ASKING.set(True)
    kept = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
    try:
        with kept, replaced(pipe, "progress_bar", functools.partial(tqdm, disable=True)):
            yield
    finally:
        _ASKING.reset(token)


def windows_of(pipe: Any) -> WindowedPlan | None:
    """The plan of a pipeline's (first) transformer, if that is a variant with windows."""
    return _windows_of(_uncompiled(pipe.transformer))


def _windows_of(model: Any) -> WindowedPlan | None:
    if not is_variant(model):
        return None
    forward = forward_of_variant(model)
    return forward.plan if isinstance(forward, WindowedForward) else None


def _uncompiled(transformer: Any) -> Any:
    """The model itself, where it is compiled."""
    return extract_model_from_parallel(transformer, keep_torch_compile=False)


def _guidance_of(pipe: Any, plans: list[WindowedPlan], arguments: dict[str, Any]) -> Guidance:
    """How the branches are laid out in a call like this; asked once for calls that are alike."""
    layouts: dict[Any, Guidance] = pipe.__dict__.setdefault(LAYOUTS, {})
    key = key_of_probe(probe_call(arguments))
    found = layouts.get(key) if key is not None else None
    if found is None:
        found = first_answer(functools.partial(find_guidance, pipe), arguments)
        if key is not None:
            layouts[key] = found
    if UNCONDITIONAL not in found.branches and any(map(_does_more_unconditionally, plans)):
        raise InputError(
            f"the spec has operations on the unconditional branch (when: branch), and {type(pipe).__name__} is called "
            "without guidance, so that there is none; raise its guidance scale, or leave the window out"
        )
    return found


def _does_more_unconditionally(plan: WindowedPlan) -> bool:
    """Whether some plan of the unconditional branch is no plan of the conditional one: it would never run."""
    by_branch = {branch: {p for atom, p in plan.atoms if atom.branch == branch} for branch in (None, "conditional")}
    ran = by_branch[None] | by_branch["conditional"]
    return any(not p.is_identity and p not in ran for atom, p in plan.atoms if atom.branch == UNCONDITIONAL)
