"""Example inputs of a transformer: from a row that ships, from one call that was recorded, or from its config alone.

Rows are those of `call_rows`. The free sizes are `batch`, `height` and `width` of the latents, `frames`, `text` tokens,
`image` tokens (for models that take a sequence), also as `rows` and `columns`, and those that a recorded call has. The
rows of `SHAPES` were written by hand, the others that ship by `make examples`, which keeps what is found by trying
(`found_call`). A model of which nothing is known is traced at its first run.
"""

import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgery.calls.call_rows import Maker, Row, Sizes, make_arguments, terms_of
from surgery.calls.found_call import find_call
from surgery.calls.kept_calls import BY_HAND, FOUND, SHIPPED, KeptCall, keep_call, key_of_call, recall_call
from surgery.calls.trials import DONE, Trials
from surgery.errors import InputError

BATCH = 2
TEXT_TOKENS = 77
IMAGE_TOKENS = 4096  # 1024 x 1024 pixels in the models that take a sequence
LATENT_SIZE = 128
FRAMES = 5  # of latents
ROWS = COLUMNS = 64  # of image tokens
SMALL_SIZES = {"height": 8, "width": 8, "frames": 1, "image": 16, "rows": 4, "columns": 4, "text": 7}
TRIED_SIZES: tuple[Mapping[str, int], ...] = ({}, SMALL_SIZES)  # beside the native ones: models may have short tables
FAILURES = (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, StopIteration)
SHIPPED_ROWS = Path(__file__).with_name("example_rows.json")  # written by `make examples`

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
    "DiT": {  # of surgery.dit
        "hidden_states": "batch in_channels height width",
        "timestep": "batch",
        "class_labels": "batch if num_classes : integer",
        "pooled_projections": "batch pooled_projection_dim if pooled_projection_dim",
    },
    "DiTTransformer2DModel": {
        "hidden_states": "batch in_channels height width",
        "timestep": "batch",
        "class_labels": "batch : integer",
    },
}


@dataclass(frozen=True)
class ExampleCall:
    """Keyword arguments that a model's forward accepts, the free sizes that they were made with, and whence they are
    known (see `KeptCall`)."""

    kwargs: dict[str, Any]
    sizes: dict[str, int]
    known_from: str = BY_HAND


def sizes_for_config(config: Mapping[str, Any]) -> dict[str, int]:
    """The free sizes: the model's native resolution where its config has one."""
    native = config.get("sample_size")
    first = native[0] if isinstance(native, (list, tuple)) and native else native
    side = first if type(first) is int and first > 0 else LATENT_SIZE
    patch = config.get("patch_size", 1)
    tokens = (side // patch) ** 2 if type(patch) is int and patch > 0 else IMAGE_TOKENS
    text = TEXT_TOKENS if tokens != TEXT_TOKENS else TEXT_TOKENS + 1  # streams are told apart by their lengths
    pixels = {
        "height": _number(config, "sample_height", side),
        "width": _number(config, "sample_width", side),
        "frames": _frames(config),
    }
    text = _number(config, "max_text_seq_length", text)
    return {"batch": BATCH, **pixels, "text": text, "image": IMAGE_TOKENS, "rows": ROWS, "columns": COLUMNS}


def _number(config: Mapping[str, Any], name: str, otherwise: int) -> int:
    value = config.get(name)
    return value if type(value) is int and value > 0 else otherwise


def _frames(config: Mapping[str, Any]) -> int:
    """Frames of latents: those that a model was made for, after compression, where its config says both."""
    frames = _number(config, "sample_frames", 0)
    compression = _number(config, "temporal_compression_ratio", 1)
    return (frames - 1) // compression + 1 if frames else FRAMES


def example_call(
    model: nn.Module, *, sizes: Mapping[str, int] | None = None, generator: torch.Generator | None = None
) -> ExampleCall | None:
    """Inputs for `model` on its own device and dtype, or None where none are known (`why_no_call` says why).

    `sizes` overrides the free sizes. With a generator the values are random, without they are zeros.

    Raises:
        InputError: a size in the config is none.
    """
    known = known_call(model)
    if known is None or not known.works:
        return None
    try:
        return _make_call(model, known, sizes or {}, generator)
    except FAILURES as error:
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise InputError(
            f"no example inputs can be made for the {type(model).__name__} of this config: {reason}"
        ) from None


def failure_of_row(model: nn.Module) -> str | None:
    """Why the example inputs that ship for the class of a model do not do for it; None where none ship, or they do."""
    known = known_call(model)
    if known is None or not known.failure:
        return None
    return f"the example inputs that ship for {type(model).__name__} do not fit this config: {known.failure}"


def why_no_call(model: nn.Module) -> str:
    """Why there are no example inputs for a model, as a sentence."""
    return failure_of_row(model) or f"there are no example inputs for {type(model).__name__}"


def known_call(model: nn.Module) -> KeptCall | None:
    """What is known of the calls of a model, the surest that works: a row by hand, a real call, a row that is found.

    Rows are tried on the meta device, once in a process. What nothing is known of is looked for; what was found, or
    that nothing was, is kept. Where a row ships and nothing works, it is that row, with its failure; None for a model
    without a config or without weights.
    """
    key = call_key(model)
    if key is None or not any(value.is_floating_point() for value in model.parameters()):
        return None
    if key in _LENT:
        return _LENT[key]
    by_hand = _try_by_hand(model, key)
    if by_hand is not None and by_hand.works:
        return by_hand
    kept = recall_call(key)
    if kept is not None and kept.is_recorded:
        return kept
    if key not in _FOUND:
        _FOUND[key] = kept or _find(model, key)
    found = _FOUND[key]
    return found if found.works or by_hand is None else by_hand


_LENT: dict[str, KeptCall] = {}  # by key, as all that this process knows
_TRIED: dict[str, KeptCall] = {}  # rows by hand
_FOUND: dict[str, KeptCall] = {}  # rows that ship, or were found


def call_key(model: nn.Module) -> str | None:
    """The key of a model's calls; None where it has no config by which to know it."""
    config = getattr(model, "config", None)
    if not isinstance(config, Mapping):
        return None
    return key_of_call(type(model).__name__, config)


def _config_of(model: nn.Module) -> dict[str, Any]:
    return dict(getattr(model, "config"))  # noqa: B009  (nn.Module types it as a tensor)


def lend_call(model: nn.Module, call: KeptCall) -> None:
    """Let another model of the class, of a config of its own, have what is known of a call; in this process only."""
    key = call_key(model)
    if key is not None:
        _LENT[key] = call


def _try_by_hand(model: nn.Module, key: str) -> KeptCall | None:
    row = SHAPES.get(type(model).__name__)
    if row is not None and key not in _TRIED:
        _TRIED[key] = _try_row(model, row, BY_HAND)
    return _TRIED.get(key)


def _try_row(model: nn.Module, row: Row, known_from: str) -> KeptCall:
    """A row that ships, with the sizes at which a model runs with it, or why it does not at the first of them."""
    native = sizes_for_config(_config_of(model))
    failures = []
    for sizes in TRIED_SIZES:
        trials = Trials(model, {**native, **sizes})
        if trials.try_row(row) == DONE:
            return KeptCall(row, sizes, known_from)
        failures.append(trials.failure)
    return KeptCall(row, {}, known_from, failures[0])


def _find(model: nn.Module, key: str) -> KeptCall:
    """A row that ships, where the model runs with it; else what is found by trying, which is kept."""
    shipped = shipped_rows().get(type(model).__name__)
    tried = KeptCall(None, {}, FOUND) if shipped is None else _try_row(model, shipped, SHIPPED)
    if tried.works:
        return tried
    native = sizes_for_config(_config_of(model))
    rows = (find_call(model, {**native, **sizes}) for sizes in reversed(TRIED_SIZES))  # small ones are quick
    row = next((row for row in rows if row is not None), None)
    found = tried if row is None else _try_row(model, row, FOUND)
    keep_call(key, found)
    return found


@functools.cache
def shipped_rows() -> Mapping[str, Row]:
    """The rows that ship beside those of `SHAPES`, by class."""
    rows: Mapping[str, Row] = json.loads(SHIPPED_ROWS.read_bytes())
    return rows


def _make_call(
    model: nn.Module, known: KeptCall, sizes: Mapping[str, int], generator: torch.Generator | None
) -> ExampleCall:
    config = _config_of(model)
    row = known.row
    assert row is not None, "a call is made of a row"
    free = {**sizes_for_config(config), **known.sizes, **sizes}
    weight = next(value for value in model.parameters() if value.is_floating_point())
    kwargs = make_arguments(row, Maker(Sizes(free, config), weight, generator))
    known_arguments = inspect.signature(inspect.unwrap(type(model).forward)).parameters
    used = set().union(*map(terms_of, row.values()))
    return ExampleCall(
        {name: value for name, value in kwargs.items() if name in known_arguments},
        {name: size for name, size in free.items() if name in used},
        known.known_from,
    )
