"""The arguments of a pipeline's call -> those with which it can be asked about its guidance, for two other prompts."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch

from surgery.errors import InputError
from surgery.pipelines.conditions import CLASS_LABELS
from surgery.pipelines.guidance import PROBES

Answer = TypeVar("Answer")

LEFT_OUT = ("self", CLASS_LABELS, "generator", "latents", "output_type", "return_dict")
NUM_OF_A_PROMPT = re.compile(r"num_\w+_per_prompt")  # images, videos, waveforms
NEGATIVE = "negative_"


def arguments_of_call(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name; those that fit no name are left out: the call itself falls over them."""
    try:
        bound = inspect.signature(type(pipe).__call__).bind_partial(pipe, *args, **kwargs)
    except TypeError:
        return {}
    return dict(bound.arguments)


def first_answer(ask: Callable[[dict[str, Any]], Answer], arguments: Mapping[str, Any]) -> Answer:
    """What a pipeline says to a call that is laid out like the one with these arguments.

    Some take one picture, or one negative text, for all prompts; some want one for each. Each way is tried.

    Raises:
        InputError: it refuses all; what is said is of the first.
    """
    failure: InputError | None = None
    for call in _ways_to_call(probe_call(arguments)):
        try:
            return ask(call)
        except InputError as error:
            failure = failure or error
    assert failure is not None, "there is one way at least"
    raise failure


def _ways_to_call(call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A call with one picture and one negative text for all prompts, and with one of either, or of both, for each."""
    texts = tuple(name for name, value in call.items() if name.startswith(NEGATIVE) and value is not None)
    pictures = tuple(name for name, value in call.items() if _is_picture(value))
    for names in dict.fromkeys(((), texts, pictures, texts + pictures)):
        yield {**call, **{name: [call[name]] * len(PROBES) for name in names}}


def _is_picture(value: Any) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def probe_call(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The call that is laid out alike: without its prompts, noise and callbacks; negative prompts as one for all."""
    kept: dict[str, Any] = {}
    for name, value in arguments.items():
        is_of_prompts = name.startswith(("prompt", "pooled_prompt", "callback", "ip_adapter"))
        if name in LEFT_OUT or is_of_prompts or NUM_OF_A_PROMPT.fullmatch(name):
            continue
        if name.startswith(NEGATIVE) and value is not None:
            kept[f"{NEGATIVE}prompt"] = ""  # what it says changes nothing of the layout, that there is one does
        elif isinstance(value, list) and value and not isinstance(value[0], (int, float)):
            kept[name] = value[0]  # pictures of a batch
        else:
            kept[name] = value
    return kept


def key_of_probe(call: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """What two calls have in common that are laid out alike; None where that can't be told."""
    plain = (bool, int, float, str, type(None), tuple)
    if any(isinstance(value, torch.Tensor) or not isinstance(value, (*plain, list)) for value in call.values()):
        return None
    return tuple(sorted((name, repr(value)) for name, value in call.items()))
