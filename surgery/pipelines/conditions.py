"""What a pipeline draws from: prompts, or of a class-conditional one (DiT) the numbers of classes."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from surgery.errors import InputError
from surgery.spec.nearest import nearest, shorten

CLASS_LABELS = "class_labels"  # the argument of class-conditional pipelines
PROMPT = "prompt"  # that of all others
NEGATIVE = "negative_"  # how the arguments begin that say what is not wanted: true guidance begins with them


def is_class_conditional(pipe: Any) -> bool:
    """Whether a pipeline is called with the numbers of classes instead of prompts."""
    return CLASS_LABELS in inspect.signature(type(pipe).__call__).parameters


def conditions_of(pipe: Any, prompts: Sequence[str]) -> list[Any]:
    """What a pipeline draws from: the prompts, or the classes that they name.

    Raises:
        InputError: a prompt is neither the number of a class nor the name of one; or nothing can encode it.
    """
    if is_class_conditional(pipe):
        return [_class_of(pipe, prompt) for prompt in prompts]
    encoders = [value for name, value in getattr(pipe, "components", {}).items() if name.startswith("text_encoder")]
    if encoders and all(value is None for value in encoders):
        raise InputError(
            f"{type(pipe).__name__} has no text encoder here, and it is called with prompts (windows find out with two "
            "how it lays out guidance and time); load it with its text encoder, or give it embeddings"
        )
    return list(prompts)


def as_argument(pipe: Any, conditions: Sequence[Any] | None) -> dict[str, Any]:
    """What a pipeline draws from, by the name of the argument: some take a picture before the prompts.

    Raises:
        InputError: its call takes neither prompts nor classes.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    name = next((name for name in (CLASS_LABELS, PROMPT) if name in known), None)
    if name is None:
        raise InputError(f"{type(pipe).__name__} is called with neither prompts nor classes")
    return {name: conditions}


def arguments_of(pipe: Any, conditions: Sequence[Any], call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call with these conditions: one negative text for all is given once for each of them.

    That is what most pipelines make of it themselves; others take it for that of a single prompt.

    Raises:
        InputError: the pipeline takes neither prompts nor classes.
    """
    spread = {
        name: [value] * len(conditions) if name.startswith(f"{NEGATIVE}{PROMPT}") and isinstance(value, str) else value
        for name, value in call.items()
    }
    return {**as_argument(pipe, conditions), **spread}


def _class_of(pipe: Any, prompt: str) -> int:
    """A class by its number, or by a name that the pipeline knows (ImageNet's, of DiT)."""
    names: Mapping[str, int] = getattr(pipe, "labels", None) or {}
    num_classes = _num_classes(pipe.transformer.config)
    text = prompt.strip()
    if text in names:
        return int(names[text])
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) < num_classes:
        return int(text)
    near = nearest(text, names)
    known = f"a number from 0 to {num_classes - 1}" + ", or a name" * bool(names)
    hint = f"did you mean {near}?" if near is not None else f"write {known}"
    raise InputError(f'"{shorten(prompt)}" is no class of this {type(pipe).__name__}; {hint}')


def _num_classes(config: Mapping[str, Any]) -> int:
    """How many classes a transformer knows: `num_classes` of `surgery.dit.DiT`, else as diffusers' DiT calls it."""
    return int(config.get("num_classes") or config["num_embeds_ada_norm"])
