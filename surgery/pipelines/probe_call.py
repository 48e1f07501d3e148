"""The arguments of a pipeline's call -> those with which it can be asked about its guidance, for two other prompts."""

import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import torch

from surgery.errors import InputError
from surgery.pipelines.conditions import CLASS_LABELS, NEGATIVE, PROMPT
from surgery.pipelines.probes import embeddings_of_probes, is_embedded, is_encoded, is_of_texts

Answer = TypeVar("Answer")

LEFT_OUT = ("self", CLASS_LABELS, "generator", "latents", "output_type", "return_dict")
LEFT_OUT_KINDS = ("callback", "ip_adapter")
NUM_OF_A_PROMPT = re.compile(r"num_\w+_per_prompt")  # images, videos, waveforms


def arguments_of_call(pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name; those that fit no name are left out: the call itself falls over them."""
    try:
        bound = inspect.signature(type(pipe).__call__).bind_partial(pipe, *args, **kwargs)
    except TypeError:
        return {}
    return dict(bound.arguments)


def first_answer(ask: Callable[[dict[str, Any]], Answer], arguments: Mapping[str, Any]) -> Answer:
    """What a pipeline says to a call that is laid out like the one with these arguments.

    Of a call with embeddings it is asked with such, or, where it refuses those, with prompts.

    Raises:
        InputError: it refuses both; what is said is of the first.
    """
    call = probe_call(arguments)
    try:
        return ask(call)
    except InputError:
        if is_embedded(call):
            with suppress(InputError):
                return ask(probe_call(arguments, with_embeddings=False))
        raise


def probe_call(arguments: Mapping[str, Any], *, with_embeddings: bool = True) -> dict[str, Any]:
    """The call that is laid out alike: without its prompts, noise and callbacks; negative prompts as one for all.

    Of a call with embeddings, those of two probes are in their place.
    """
    is_of_embeddings = with_embeddings and arguments.get(PROMPT) is None and is_embedded(arguments)
    kept: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in LEFT_OUT or name.startswith(LEFT_OUT_KINDS) or NUM_OF_A_PROMPT.fullmatch(name):
            continue
        if is_of_texts(name):
            if is_of_embeddings and (value is None or is_encoded(value)):
                kept[name] = None if value is None else embeddings_of_probes(name, value)
            elif name.startswith(NEGATIVE) and value is not None:
                kept[f"{NEGATIVE}{PROMPT}"] = ""  # what it says changes nothing of the layout, that there is one does
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
