"""A live pipeline -> what it gives its transformer, recorded once: from then on the model is known without its weights.

The pipeline prepares everything (texts, positions, packing) and is stopped where it would first run its transformer.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from surgery.calls.example_inputs import call_key, known_call
from surgery.calls.kept_calls import RECORDED, KeptCall, keep_call
from surgery.calls.recorded_call import describe_call
from surgery.errors import InputError, SurgeryError
from surgery.pipelines.conditions import arguments_of, conditions_of, is_class_conditional
from surgery.pipelines.guidance import StopSampling
from surgery.pipelines.probes import CLASSES, PROBES, refusal_of
from surgery.pipelines.replaced import replaced
from surgery.pipelines.timestep_convention import learn_convention


def learn_call(pipe: Any, call: Mapping[str, Any]) -> KeptCall:
    """Record what a pipeline gives its transformer in a call with these arguments, and keep it in the cache.

    How it tells its transformer the timestep is learnt as well, where that can be: windows (`when`) go by it.

    Raises:
        InputError: the pipeline refuses the call, or never runs its transformer.
        RefusedError: the transformer is given what can't be written down.
    """
    args, kwargs = first_call(pipe, call)
    with suppress(SurgeryError):
        learn_convention(pipe, call)
    return keep_given(pipe.transformer, args, kwargs)


def keep_given(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> KeptCall:
    """Keep what a model was given; raises as above."""
    row, sizes = describe_call(model, args, kwargs)
    key = call_key(model)
    if key is None:
        raise InputError(f"a {type(model).__name__} has no config by which to know it again")
    found = KeptCall(row, sizes, f"{RECORDED} {datetime.now(UTC).isoformat(timespec='seconds')}")
    if not keep_call(key, found):
        raise InputError("what was recorded can't be kept: the cache can't be written to; set SURGERY_CACHE")
    return found


def learn_unless_known(pipe: Any, call: Mapping[str, Any]) -> None:
    """The same where no call of its transformer is known for sure yet; where it can't be recorded, nothing happens."""
    known = known_call(pipe.transformer)
    if known is None or not known.works or not (known.is_by_hand or known.is_recorded):
        with suppress(SurgeryError):
            learn_call(pipe, call)


def first_call(pipe: Any, call: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a pipeline first gives its transformer: of two pictures, or of one where it takes no two."""
    prompts = CLASSES if is_class_conditional(pipe) else PROBES
    failure: Exception | None = None
    for count in (len(prompts), 1):
        given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def stop(*args: Any, **kwargs: Any) -> None:
            given.append((args, kwargs))  # noqa: B023  (it is called before the next turn)
            raise StopSampling

        noise = [torch.Generator().manual_seed(number) for number in range(count)]
        asked = arguments_of(pipe, conditions_of(pipe, prompts[:count]), call)
        with replaced(pipe.transformer, "forward", stop):
            try:
                pipe(**asked, generator=noise, output_type="latent")
            except StopSampling:
                return given[0]
            except Exception as error:  # as pipelines answer to odd values
                failure = failure or error
    if failure is None:
        raise InputError(f"{type(pipe).__name__} never runs its transformer")
    raise refusal_of(pipe, failure) from failure
