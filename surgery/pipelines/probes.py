"""Two conditions for which a pipeline is asked how it calls its transformer: prompts, classes, or embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from surgery.errors import InputError
from surgery.pipelines.conditions import NEGATIVE, arguments_of, as_argument, conditions_of, is_class_conditional
from surgery.spec.nearest import shorten

PROBES = ("a red apple on a table", "two blue birds")
CLASSES = ("0", "1")  # in their place where the pipeline draws classes
BOTH = (0, 1)
TEXT_NAMES = ("prompt", "pooled_prompt")  # how the arguments begin that hold what a text is encoded to
MAX_TEXT = 400  # characters of what a pipeline says itself


def probe_arguments(pipe: Any, call: Mapping[str, Any], numbers: Sequence[int]) -> dict[str, Any]:
    """The arguments of a call for the probes of these numbers; of a call with embeddings of both, for their rows.

    Raises:
        InputError: the pipeline takes neither prompts nor classes, or has nothing that encodes prompts.
    """
    if not is_embedded(call):
        texts = CLASSES if is_class_conditional(pipe) else PROBES
        return arguments_of(pipe, conditions_of(pipe, [texts[number] for number in numbers]), call)
    own = {name: _rows_of(value, numbers) if is_of_texts(name) else value for name, value in call.items()}
    return {**as_argument(pipe, None), **own}


def is_embedded(call: Mapping[str, Any]) -> bool:
    """Whether a call is given what its prompts are encoded to."""
    return any(name.startswith(TEXT_NAMES) and is_encoded(value) for name, value in call.items())


def is_of_texts(name: str) -> bool:
    """Whether an argument holds what prompts, or negative ones, are encoded to."""
    return name.removeprefix(NEGATIVE).startswith(TEXT_NAMES)


def embeddings_of_probes(name: str, value: Any) -> Any:
    """What is given of the first prompt, for two: embeddings of prompts are changed, so that the two differ.

    Neither is left as it is: the negative one may be the same.
    """
    if isinstance(value, (list, tuple)):
        first = value[0]
        return [_changed(first, number) if _tells_texts_apart(name, first) else first for number in BOTH]
    first = value[:1]
    return torch.cat([_changed(first, number) if _tells_texts_apart(name, value) else first for number in BOTH])


def is_encoded(value: Any) -> bool:
    """Whether a value is a tensor of rows, or a list of such."""
    found = value[0] if isinstance(value, (list, tuple)) and value else value
    return isinstance(found, torch.Tensor) and found.ndim > 0


def _tells_texts_apart(name: str, value: torch.Tensor) -> bool:
    """Not so what is negative, nor a mask."""
    return not name.startswith(NEGATIVE) and "mask" not in name and value.is_floating_point()


def _changed(value: torch.Tensor, number: int) -> torch.Tensor:
    return value + (number + 1) * (1 + value.abs().max())


def _rows_of(value: Any, numbers: Sequence[int]) -> Any:
    if not is_encoded(value):
        return value
    rows = [value[number] for number in numbers]
    return rows if isinstance(value, list) else torch.stack(rows)


def refusal_of(pipe: Any, error: Exception) -> InputError:
    """What is raised where a pipeline refuses a call: an assertion may say nothing, some errors show whole tensors."""
    text = shorten(str(error) or type(error).__name__, MAX_TEXT)
    return InputError(f"{type(pipe).__name__} refuses the call: {text}")
