"""A pipeline's call without guidance: its conditional branch alone, however it is told to leave out the other."""

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from surgery.pipelines.conditions import NEGATIVE
from surgery.pipelines.replaced import replaced


@contextmanager
def unguided(pipe: Any, call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Within it a pipeline runs one branch; yields the arguments of the call for that.

    A scale of guidance is 1, where the pipeline takes one; nothing is given that is not wanted; and its guiders are
    replaced by copies that are switched off.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    arguments = {name: value for name, value in call.items() if not name.startswith(NEGATIVE)}
    if "guidance_scale" in known:
        arguments["guidance_scale"] = 1.0
    with ExitStack() as stack:
        for name, part in getattr(pipe, "components", {}).items():
            if _is_guider(part):
                switched_off = copy.copy(part)
                switched_off.disable()
                stack.enter_context(replaced(pipe, name, switched_off))
        yield arguments


def _is_guider(part: Any) -> bool:
    """Whether a component prepares the branches of guidance and joins them again (diffusers' `guiders`)."""
    return all(callable(getattr(part, name, None)) for name in ("disable", "enable", "prepare_inputs"))
