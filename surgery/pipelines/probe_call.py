"""The arguments of a pipeline's call -> those with which it can be asked about its guidance, for two other prompts."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from surgery.errors import InputError
from surgery.pipelines.conditions import CLASS_LABELS
from surgery.pipelines.guidance import PROBES

Answer = TypeVar("Answer")

LEFT_OUT = ("self", CLASS_LABELS, "generator", "latents", "output_type", "return_dict", "num_images_per_prompt")
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

    Some take one picture for all prompts, some want one for each; each way is tried.

    Raises:
        InputError: it refuses both.
    """
    call = probe_call(arguments)
    pictures = {name: value for name, value in call.items() if _is_picture(value)}
    try:
        return ask(call)
    except InputError:
        if not pictures:
            raise
        return ask({**call, **{name: [value] * len(PROBES) for name, value in pictures.items()}})


def _is_picture(value: Any) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def probe_call(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The call that is laid out alike: without its prompts, noise and callbacks; negative prompts as one for all."""
    kept: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in LEFT_OUT or name.startswith(("prompt", "pooled_prompt", "callback", "ip_adapter")):
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
