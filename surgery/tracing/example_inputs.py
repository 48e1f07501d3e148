"""Example inputs of a transformer from its config alone: a table of argument -> shape, one row a model class.

A shape is written in the config's own fields, integers and four free sizes: `batch`, `height` and `width` of the
latents, `text` tokens, `image` tokens (for models that take a sequence). A class without a row is traced at its first
run instead.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from surgery.errors import InputError

BATCH = 2
TEXT_TOKENS = 77
IMAGE_TOKENS = 4096  # 1024 x 1024 pixels in the models that take a sequence
LATENT_SIZE = 128
FRAMES = 5  # of latents

JOINT_GRID = {
    "hidden_states": "batch in_channels height width",
    "encoder_hidden_states": "batch text joint_attention_dim",
    "timestep": "batch",
}
JOINT_SEQUENCE = {
    "hidden_states": "batch image in_channels",
    "encoder_hidden_states": "batch text joint_attention_dim",
    "timestep": "batch",
    "img_ids": "image 3",
    "txt_ids": "text 3",
}

SHAPES: Mapping[str, Mapping[str, str]] = {
    "PixArtTransformer2DModel": {
        "hidden_states": "batch in_channels height width",
        "encoder_hidden_states": "batch text caption_channels",
        "encoder_attention_mask": "batch text",
        "timestep": "batch",
        "added_cond_kwargs.resolution": "batch 2 if use_additional_conditions",
        "added_cond_kwargs.aspect_ratio": "batch 1 if use_additional_conditions",
    },
    "SD3Transformer2DModel": {**JOINT_GRID, "pooled_projections": "batch pooled_projection_dim"},
    "FluxTransformer2DModel": {
        **JOINT_SEQUENCE,
        "pooled_projections": "batch pooled_projection_dim",
        "guidance": "batch if guidance_embeds",
    },
    "ChromaTransformer2DModel": {**JOINT_SEQUENCE, "attention_mask": "batch text+image"},
    "AuraFlowTransformer2DModel": JOINT_GRID,
    "Lumina2Transformer2DModel": {
        "hidden_states": "batch in_channels height width",
        "timestep": "batch",
        "encoder_hidden_states": "batch text cap_feat_dim",
        "encoder_attention_mask": "batch text : boolean",
    },
    "WanTransformer3DModel": {
        "hidden_states": "batch in_channels frames height width",
        "timestep": "batch",
        "encoder_hidden_states": "batch text text_dim",
    },
    "SanaTransformer2DModel": {
        "hidden_states": "batch in_channels height width",
        "encoder_hidden_states": "batch text caption_channels",
        "timestep": "batch",
        "encoder_attention_mask": "batch text",
    },
    "Flux2Transformer2DModel": {
        "hidden_states": "batch image in_channels",
        "encoder_hidden_states": "batch text joint_attention_dim",
        "timestep": "batch",
        "img_ids": "batch image 4",
        "txt_ids": "batch text 4",
        "guidance": "batch",
    },
    "DiTTransformer2DModel": {
        "hidden_states": "batch in_channels height width",
        "timestep": "batch",
        "class_labels": "batch : integer",
    },
}


@dataclass(frozen=True)
class ExampleCall:
    """Keyword arguments that a model's forward accepts, and the free sizes that they were made with."""

    kwargs: dict[str, Any]
    sizes: dict[str, int]


def has_example_inputs(class_name: str) -> bool:
    """Whether the table has a row for this class."""
    return class_name in SHAPES


def sizes_for_config(config: Mapping[str, Any]) -> dict[str, int]:
    """The free sizes: the model's native resolution where its config has one."""
    native = config.get("sample_size") or LATENT_SIZE
    side = native if isinstance(native, int) else native[0]
    patch = config.get("patch_size", 1)
    tokens = (side // patch) ** 2 if isinstance(patch, int) else IMAGE_TOKENS
    text = TEXT_TOKENS if tokens != TEXT_TOKENS else TEXT_TOKENS + 1  # streams are told apart by their lengths
    return {"batch": BATCH, "height": side, "width": side, "frames": FRAMES, "text": text, "image": IMAGE_TOKENS}


def example_call(
    model: nn.Module, *, sizes: Mapping[str, int] | None = None, generator: torch.Generator | None = None
) -> ExampleCall | None:
    """Inputs for `model` on its own device and dtype, or None where the table has no row for its class and config.

    `sizes` overrides the free sizes. With a generator the values are random, without they are zeros.

    Raises:
        InputError: a size in the config is none.
    """
    rows = SHAPES.get(type(model).__name__)
    if rows is None or _lacks_sizes(rows, dict(getattr(model, "config"))):  # noqa: B009  (nn.Module types it as a tensor)
        return None
    try:
        return _make_call(model, rows, sizes or {}, generator)
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, StopIteration) as error:
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise InputError(
            f"no example inputs can be made for the {type(model).__name__} of this config: {reason}"
        ) from None


def _lacks_sizes(rows: Mapping[str, str], config: Mapping[str, Any]) -> bool:
    """Whether a row names a field that a config leaves empty: such a model takes something else, or nothing, there."""
    terms = (term for row in rows.values() if " if " not in row for term in row.partition(":")[0].split())
    return any(term in config and config[term] is None for term in terms)


def _make_call(
    model: nn.Module, rows: Mapping[str, str], sizes: Mapping[str, int], generator: torch.Generator | None
) -> ExampleCall:
    config: Mapping[str, Any] = dict(getattr(model, "config"))  # noqa: B009  (nn.Module types it as a tensor)
    known = {**sizes_for_config(config), **sizes}
    weight = next(value for value in model.parameters() if value.is_floating_point())
    kwargs: dict[str, Any] = {}
    for argument, row in rows.items():
        shape, _, kind = row.partition(":")
        shape, _, condition = shape.partition(" if ")
        head, _, key = argument.partition(".")
        if condition and not config.get(condition.strip()):
            if key:
                kwargs.setdefault(head, {})[key] = None
            continue
        resolved = [_resolve_size(term, known, config) for term in shape.split()]
        tensor = _make_input(resolved, head, kind.strip(), weight=weight, generator=generator)
        if key:
            kwargs.setdefault(head, {})[key] = tensor
        else:
            kwargs[head] = tensor
    known_arguments = inspect.signature(type(model).forward).parameters
    used = {term for row in rows.values() for term in row.replace("+", " ").split()}
    return ExampleCall(
        {name: value for name, value in kwargs.items() if name in known_arguments},
        {name: size for name, size in known.items() if name in used},
    )


def _resolve_size(term: str, sizes: Mapping[str, int], config: Mapping[str, Any]) -> int:
    if "+" in term:
        return sum(_resolve_size(part, sizes, config) for part in term.split("+"))
    if term.isdigit():
        return int(term)
    return sizes[term] if term in sizes else int(config[term])


def _make_input(
    shape: list[int], name: str, kind: str, *, weight: torch.Tensor, generator: torch.Generator | None
) -> torch.Tensor:
    if kind == "boolean":
        return torch.ones(shape, dtype=torch.bool, device=weight.device)
    if kind == "integer":
        return torch.zeros(shape, dtype=torch.long, device=weight.device)
    if name.endswith("_mask"):
        return torch.ones(shape, dtype=weight.dtype, device=weight.device)
    if name == "timestep":
        return torch.full(shape, 0.5, dtype=weight.dtype, device=weight.device)
    if generator is None or weight.is_meta:
        return torch.zeros(shape, dtype=weight.dtype, device=weight.device)
    return torch.randn(shape, generator=generator, device=generator.device).to(weight.device, weight.dtype)
