"""Components that are replaced in some atoms of a plan only: the originals, which step aside for stand-ins there.

A switched component stays what it is, with its weights, its name and its hooks; it only asks which plan runs.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from surgery.anatomy.anatomy import Anatomy
from surgery.errors import RefusedError
from surgery.graph.replace import Means, stand_in_for
from surgery.graph.same_name import subclass_of_same_name
from surgery.plan.plan import Plan
from surgery.plan.windowed import WindowedPlan

ATTRIBUTE = "_surgery"  # of a switched component: its stand-ins by plan, out of sight of torch

_RUNNING: ContextVar[Plan | None] = ContextVar("running", default=None)


@contextmanager
def running(plan: Plan) -> Iterator[None]:
    """Within it, switched components are as this plan has them."""
    token = _RUNNING.set(plan)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def switch_components_(variant: nn.Module, plan: WindowedPlan, anatomy: Anatomy, means: Means) -> None:
    """Make each component that a plan of an atom replaces step aside where that plan runs."""
    for within in plan.plans:
        for replaced in within.replacements:
            if replaced.index in within.schedule(replaced.stack).removed:
                continue
            original: Any = variant.get_submodule(replaced.path)
            if ATTRIBUTE not in original.__dict__:
                own_class: Any = type(original)  # nn.Module is typed as unhashable
                original.__class__ = switched_class(own_class)
                original.__dict__[ATTRIBUTE] = {}
            original.__dict__[ATTRIBUTE][within] = stand_in_for(replaced, variant, anatomy, means)


@functools.cache
def switched_class(original: type[nn.Module]) -> type[nn.Module]:
    """A subclass of a component's class with its name, which steps aside."""

    @functools.wraps(original.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        plan = _RUNNING.get()
        if plan is None:
            raise RefusedError(
                f"this {original.__name__} is replaced in some windows only, and it runs outside of its model "
                "(gradient checkpointing does so in the backward pass); turn gradient checkpointing off"
            )
        stand_in = self.__dict__[ATTRIBUTE].get(plan)
        return original.forward(self, *args, **kwargs) if stand_in is None else stand_in(*args, **kwargs)

    return subclass_of_same_name(original, {"forward": forward}, switched_class)
