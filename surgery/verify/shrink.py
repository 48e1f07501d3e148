"""A config -> one of the same class and the same blocks with few channels, found by trying what the class still takes.

Heads become few, and what is a multiple of them follows; then each other large number becomes small, if the class can
still be built with it and a forward on example inputs still runs. Nothing is known of a class but its config.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from surgery.anatomy.classes import find_class
from surgery.anatomy.sources import ModelSource, build_on_meta
from surgery.calls.example_inputs import SMALL_SIZES, example_call, known_call, lend_call, why_no_call
from surgery.calls.kept_calls import KeptCall
from surgery.checkpoint.compile_plan import full_config
from surgery.errors import InputError
from surgery.tracing.clone import bare_clone, without_memory
from surgery.tracing.steps import find_stack_names

NUM_HEADS, NUM_LAYERS = 2, 3
SMALL = 32
LARGE = 128  # numbers from here on are made small
SIZES = {name: size for name, size in SMALL_SIZES.items() if name != "frames"}
FEWER = ("text", "image", "rows", "columns")  # of them, for models that take pictures of one size only
HEADS, HEAD_CHANNELS = "num_attention_heads", "attention_head_dim"


def shrink_source(source: ModelSource) -> ModelSource:
    """The source with a config of few channels; as it is where nothing can be made smaller.

    Raises:
        InputError: the class has no example inputs, so that nothing can be tried.
    """
    model = build_on_meta(source)
    known = known_call(model)
    if known is None or not known.works:
        raise InputError(why_no_call(model))
    config = full_config(source)
    few = _few_layers(source, config, model)
    names = set(build_on_meta(replace(source, config={**config, **few})).state_dict())
    for changes in _smaller_heads(config):
        if _runs(source, {**config, **changes, **few}, names, known):
            config = {**config, **changes}
            break
    for name, value in list(config.items()):
        if type(value) is int and value >= LARGE and _runs(source, {**config, name: SMALL, **few}, names, known):
            config[name] = SMALL
    small = replace(source, config=config, pipeline=None, folder=None, file=None, revision=None, weights_dtype=None)
    lend_call(build_on_meta(small), known)
    return small


def small_sizes(model: nn.Module) -> Mapping[str, int]:
    """Small free sizes of a call of a model: the smallest with which its forward runs on the meta device."""
    known = known_call(model)
    if known is None or known.is_by_hand:
        return SIZES
    skeleton = bare_clone(model, without_memory)
    tried: tuple[Mapping[str, int], ...] = (SIZES, {name: SIZES[name] for name in FEWER})
    return next((sizes for sizes in tried if _runs_with(skeleton, sizes)), {})


def _few_layers(source: ModelSource, config: Mapping[str, Any], model: nn.Module) -> dict[str, int]:
    """Fields that are as large as a stack is long, made small where the class takes that: trials are quicker then."""
    lengths = {len(list(model.get_submodule(stack).children())) for stack in find_stack_names(model)}
    few: dict[str, int] = {}
    for name, value in config.items():
        if type(value) is int and value in lengths and value > NUM_LAYERS and name not in (HEADS, HEAD_CHANNELS):
            try:
                build_on_meta(replace(source, config={**config, **few, name: NUM_LAYERS}))
            except InputError:
                continue
            few[name] = NUM_LAYERS
    return few


def _smaller_heads(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Fewer heads, with every number that is a multiple of all channels; narrower heads first."""
    heads = config.get(HEADS)
    if type(heads) is not int or heads <= NUM_HEADS:
        return
    width = config.get(HEAD_CHANNELS)
    for channels in (16, width):
        if type(width) is not int or type(channels) is not int or channels > width:
            continue
        before, after = heads * width, NUM_HEADS * channels
        multiples = {
            name: value // before * after
            for name, value in config.items()
            if type(value) is int and value >= before and value % before == 0
        }
        yield {**multiples, **_axes(config, width, channels), HEADS: NUM_HEADS, HEAD_CHANNELS: channels}


def _axes(config: Mapping[str, Any], width: int, channels: int) -> dict[str, list[int]]:
    """The lists of even numbers that add up to the channels of a head (axes of rotary embeddings), for fewer."""
    if channels == width:
        return {}
    found = {}
    for name, value in config.items():
        is_list = isinstance(value, (list, tuple)) and all(type(item) is int for item in value)
        if is_list and sum(value) == width and channels >= 2 * len(value):
            found[name] = [2] * (len(value) - 1) + [channels - 2 * (len(value) - 1)]
    return found


def _runs(source: ModelSource, config: Mapping[str, Any], names: set[str], known: KeptCall) -> bool:
    """Whether a forward of the class with this config runs on the meta device, its weights having the same names."""
    try:
        model = build_on_meta(replace(source, config=config))
    except (InputError, RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError):
        return False
    lend_call(model, known)
    return _runs_with(model, small_sizes(model)) and set(model.state_dict()) == names


def _runs_with(model: nn.Module, sizes: Mapping[str, int]) -> bool:
    """Whether a forward of a model runs on the meta device with example inputs of these sizes."""
    try:
        example = example_call(model, sizes=sizes)
        assert example is not None, "the class has example inputs"
        with torch.no_grad():
            model(**example.kwargs)
    except (
        InputError,
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AssertionError,
        ArithmeticError,
        AttributeError,
    ):
        return False
    return True


def build_random(source: ModelSource, *, seed: int = 0) -> nn.Module:
    """A real model of a source: float32, evaluation mode, seeded random weights that make every layer matter."""
    model = build_on_meta(source, torch.float32).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    fresh = _buffers_of(source)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(_random(name, value, generator))
        for name, buffer in model.named_buffers():
            buffer.copy_(fresh[name])
    return model


def _random(name: str, value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(value.shape, generator=generator)
    if value.ndim > 1:
        return noise / max(1.0, value[0].numel() ** 0.5)
    return 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise


def _buffers_of(source: ModelSource) -> dict[str, torch.Tensor]:
    """The buffers as the class computes them (positions, frequencies): they are no random weights."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = find_class(source.class_name).from_config(dict(source.config))
    return dict(model.named_buffers())
