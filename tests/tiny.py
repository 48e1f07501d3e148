"""Tiny real models and their anatomies, made once a process. Nobody changes them: what edits a model builds its own."""

import functools

from torch import nn

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.from_model import read_anatomy
from surgery.dit.blocks import CONDITIONINGS
from surgery.testing import TINY_MODELS, build_tiny_model

STACKS = {
    "pixart": ["transformer_blocks"],
    "sd3": ["transformer_blocks"],
    "sd3-dual": ["transformer_blocks"],
    "flux": ["transformer_blocks", "single_transformer_blocks"],
    "auraflow": ["joint_transformer_blocks", "single_transformer_blocks"],
    "dit": ["transformer_blocks"],
    "chroma": ["transformer_blocks", "single_transformer_blocks"],
}
REFERENCE = dict.fromkeys(CONDITIONINGS, ["transformer_blocks"])  # of surgery.dit


@functools.cache
def tiny_model(name: str) -> nn.Module:
    """The tiny model of a name."""
    return build_tiny_model(name)


@functools.cache
def tiny_anatomy(name: str) -> Anatomy:
    """Its anatomy."""
    return read_anatomy(tiny_model(name))


def changed_models() -> list[str]:
    """The names of models that are no longer as they were built."""
    return [name for name in TINY_MODELS if not _is_as_built(name)]


def _is_as_built(name: str) -> bool:
    model, fresh = tiny_model(name), build_tiny_model(name)
    return bool(
        _state_of(model) == _state_of(fresh)
        and all((one == other).all() for one, other in zip(model.parameters(), fresh.parameters(), strict=True))
        and all(value.grad is None for value in model.parameters())
    )


def _state_of(model: nn.Module) -> list[object]:
    """Of every module: its name, class, mode, dtypes and hooks, and whether its forward is its class's own."""
    return [
        (
            *(name, type(module), module.training, [value.dtype for value in module.parameters(recurse=False)]),
            *(len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in module.__dict__),
        )
        for name, module in model.named_modules()
    ]
