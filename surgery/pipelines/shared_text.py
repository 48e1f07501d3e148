"""Prompts are encoded once for all variants: they share the text encoders, and so what comes out of them."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from surgery.pipelines.replaced import replaced

PLAIN = (str, int, float, bool, type(None))


@contextmanager
def text_encoded_once(pipes: Sequence[Any], known: dict[str, Any] | None = None) -> Iterator[None]:
    """Within it, `encode_prompt` of these pipelines answers a call that was made before from memory.

    Calls that hold anything but plain values (ready embeddings, say) are passed on. The answers are copies. `known` is
    what an earlier one remembered of the same text encoders.
    """
    known = {} if known is None else known
    with ExitStack() as stack:
        for pipe in pipes:
            if hasattr(pipe, "encode_prompt"):
                stack.enter_context(replaced(pipe, "encode_prompt", _remembering(pipe.encode_prompt, known)))
        yield


def _remembering(encode: Any, known: dict[str, Any]) -> Any:
    @functools.wraps(encode)  # pipelines may look at its signature
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        plain = {name: value for name, value in kwargs.items() if not isinstance(value, torch.device)}
        if not _is_plain([*args, *plain.values()]):
            return encode(*args, **kwargs)
        key = repr((args, sorted(kwargs.items(), key=lambda item: item[0])))
        if key not in known:
            known[key] = encode(*args, **kwargs)
        return _copy_of(known[key])

    return encode_prompt


def _copy_of(value: Any) -> Any:
    """Tensors in (nested) tuples, lists and dicts as copies; everything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if type(value) in (tuple, list):
        return type(value)(_copy_of(item) for item in value)
    if type(value) is dict:
        return {name: _copy_of(item) for name, item in value.items()}
    return value


def _is_plain(values: Sequence[Any]) -> bool:
    return all(isinstance(v, PLAIN) or (isinstance(v, (list, tuple)) and _is_plain(v)) for v in values)
