"""A config -> one of the same class and the same blocks with few channels, found by trying what the class still takes.

Heads become few, and what is a multiple of them follows; then each other large number becomes small, if the class can
still be built with it and a forward on example inputs still runs. That is tried on the meta device, which looks up no
index and reads no content: what fails with numbers is undone. Nothing is known of a class but its config.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from surgery.tracing.clone import bare_clone
from surgery.tracing.steps import find_stack_names

NUM_HEADS, NUM_LAYERS = 2, 3
SMALL = 32
LARGE = 128  # numbers from here on are made small
SIZES = {name: size for name, size in SMALL_SIZES.items() if name != "frames"}
FEWER = ("text", "image", "rows", "columns")  # of them, for models that take pictures of one size only
FEWEST = {"text": 3, "image": 4, "rows": 2, "columns": 2}  # for short tables of positions
HEADS, HEAD_CHANNELS = "num_attention_heads", "attention_head_dim"
BROKEN = (  # what a forward raises that was not made for a config, or for sizes
    InputError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    ArithmeticError,
    AttributeError,
)


def shrink_source(source: ModelSource) -> ModelSource:
    """The source with a config of few channels; as it is where nothing can be made smaller.

    Raises:
        InputError: the class has no example inputs, so that nothing can be tried; or its forward runs with no small
            config once there are numbers in it.
    """
    model = build_on_meta(source)
    known = known_call(model)
    if known is None or not known.works:
        raise InputError(why_no_call(model))
    whole = full_config(source)
    few = _few_layers(source, whole, model, known)
    like = build_on_meta(replace(source, config={**whole, **few}))
    steps: list[dict[str, Any]] = []
    config = dict(whole)
    for changes in _smaller_heads(whole):
        if _runs(source, {**config, **changes, **few}, known, like):
            config, steps = {**config, **changes}, [changes]
            break
    for name, value in whole.items():
        is_large = type(value) is int and type(config[name]) is int and config[name] >= LARGE
        if is_large and _runs(source, {**config, name: SMALL, **few}, known, like):
            config[name] = SMALL
            steps.append({name: SMALL})
    small = _small_source(source, _that_runs(source, whole, config, few, steps, known))
    lend_call(build_on_meta(small), known)
    return small


def _small_source(source: ModelSource, config: Mapping[str, Any]) -> ModelSource:
    return replace(source, config=config, pipeline=None, folder=None, file=None, revision=None, weights_dtype=None)


def _that_runs(
    source: ModelSource,
    whole: Mapping[str, Any],
    small: Mapping[str, Any],
    few: Mapping[str, int],
    steps: Sequence[Mapping[str, Any]],
    known: KeptCall,
) -> Mapping[str, Any]:
    """The small config, with as few of the steps to it undone as its forward takes to run with numbers: one, if one
    will do, or else the first n.
    """
    undone = [{name: whole[name] for name in step} for step in steps]
    together = [
        {name: value for one in undone[:count] for name, value in one.items()} for count in range(2, len(steps))
    ]
    failure: Exception | None = None
    for back in ({}, *undone, *together):
        tried = {**small, **back}
        try:
            _run_with_numbers(_small_source(source, {**tried, **few}), known)
        except BROKEN as error:
            failure = failure or error
        else:
            return tried
    raise InputError(
        f"graph and checkpoint can't be compared: the forward of {source.class_name} fails on a small model of random "
        f"weights: {type(failure).__name__}: {failure}; give --verify structure"
    )


def _run_with_numbers(source: ModelSource, known: KeptCall) -> None:
    """Run the forward of a small model on the CPU, or raise what it raises."""
    lend_call(build_on_meta(source), known)
    model = build_random(source)
    _run(model, small_sizes(model))


def _run(model: nn.Module, sizes: Mapping[str, int]) -> None:
    """Run a forward on random example inputs of these sizes."""
    example = example_call(model, sizes=sizes, generator=torch.Generator().manual_seed(1))
    assert example is not None, "the class has example inputs"
    with torch.no_grad():
        model(**example.kwargs)


def small_sizes(model: nn.Module) -> Mapping[str, int]:
    """Small free sizes of a call of a model: the first of a few with which its forward runs, on its own device."""
    known = known_call(model)
    if known is None or known.is_by_hand:
        return SIZES
    tried: tuple[Mapping[str, int], ...] = (SIZES, {name: SIZES[name] for name in FEWER}, FEWEST)
    return next((sizes for sizes in tried if _runs_with(bare_clone(model), sizes)), {})


def _few_layers(source: ModelSource, config: Mapping[str, Any], model: nn.Module, known: KeptCall) -> dict[str, int]:
    """Fields that are as large as a stack is long, made small where the class takes that: trials are quicker then.

    Some are so by chance and mean something else, channels say: with those the forward does not run.
    """
    lengths = {len(list(model.get_submodule(stack).children())) for stack in find_stack_names(model)}
    few: dict[str, int] = {}
    for name, value in config.items():
        if type(value) is int and value in lengths and value > NUM_LAYERS and name not in (HEADS, HEAD_CHANNELS):
            try:
                build_on_meta(replace(source, config={**config, **few, name: NUM_LAYERS}))
            except InputError:
                continue
            few[name] = NUM_LAYERS
    if not few or _runs(source, {**config, **few}, known):
        return few
    kept: dict[str, int] = {}
    for name in few:
        if _runs(source, {**config, **kept, name: NUM_LAYERS}, known):
            kept[name] = NUM_LAYERS
    return kept


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


def _runs(source: ModelSource, config: Mapping[str, Any], known: KeptCall, like: nn.Module | None = None) -> bool:
    """Whether a forward of the class with this config runs on the meta device; its weights must be those of `like`, if
    it is given, by name, and no more of them empty.
    """
    try:
        model = build_on_meta(replace(source, config=config))
    except (InputError, RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError):
        return False
    lend_call(model, known)
    if like is not None and not _has_weights_like(model, like):
        return False
    return _runs_with(model, small_sizes(model))


def _has_weights_like(model: nn.Module, like: nn.Module) -> bool:
    return set(model.state_dict()) == set(like.state_dict()) and _empty_weights(model) <= _empty_weights(like)


def _empty_weights(model: nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters() if not value.numel()}


def _runs_with(model: nn.Module, sizes: Mapping[str, int]) -> bool:
    """Whether a forward of a model runs with example inputs of these sizes, as far as its device can tell."""
    try:
        _run(model, sizes)
    except BROKEN:
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
        return noise / max(1.0, value.shape[1:].numel() ** 0.5)
    return 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise


def _buffers_of(source: ModelSource) -> dict[str, torch.Tensor]:
    """The buffers as the class computes them (positions, frequencies): they are no random weights."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = find_class(source.class_name).from_config(dict(source.config))
    return dict(model.named_buffers())
