"""A plan and the files of a model -> what its pruned checkpoint holds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from surgery.anatomy.sources import ModelSource, build_on_meta
from surgery.anatomy.tensor_files import Weights, num_rows
from surgery.checkpoint.config_fields import ConfigFields, edit_config, find_config_fields, signatures
from surgery.checkpoint.file_layout import in_original_layout, learn_original_layout, stock_layout
from surgery.checkpoint.fitted_blocks import Folds, fit_blocks
from surgery.checkpoint.layer_names import LayerNames
from surgery.checkpoint.misfits import find_misfits
from surgery.checkpoint.new_checkpoint import Misfit, NewCheckpoint, NewTensor, Segment
from surgery.checkpoint.unrolled import OTHER_BACKEND
from surgery.errors import InputError, RefusedError
from surgery.plan.schedule import Layer
from surgery.tracing.steps import find_stack_names

Layers = Mapping[str, Sequence[Layer]]


def orders_of(layers: Layers) -> dict[str, list[int]]:
    """The layers of each stack in their new order, by their numbers in the original."""
    return {stack: [layer.index for layer in written] for stack, written in layers.items()}


def full_config(source: ModelSource) -> dict[str, Any]:
    """The config with every field of the class, those that the file leaves out too."""
    known = dict(build_on_meta(source).config)
    return {
        **{name: value for name, value in known.items() if not name.startswith("_")},
        "_class_name": source.class_name,
    }


def fields_of_plan(source: ModelSource, layers: Layers) -> ConfigFields:
    """The fields of the config that follow the layers; raises RefusedError where a length has no field."""
    return find_config_fields(
        full_config(source), lambda config: build_on_meta(replace(source, config=config)), orders_of(layers)
    )


@dataclass(frozen=True)
class FittedPlan:
    """A plan fitted to the stock class: the class before and after (on the meta device), the config, the tensors by the
    class's own names, and the blocks that do not come whole."""

    original: nn.Module
    pruned: nn.Module
    config: Mapping[str, Any]
    tensors: tuple[NewTensor, ...]
    orders: Mapping[str, Sequence[int]]
    misfits: tuple[Misfit, ...]


def fit_plan(source: ModelSource, layers: Layers, fields: ConfigFields, folds: Folds) -> FittedPlan:
    """What the stock class needs to run these layers, by its own names; no file is read.

    Raises:
        RefusedError: the stock class can't have these layers in these places.
    """
    original = build_on_meta(source)
    orders = orders_of(layers)
    changed = edit_config(dict(original.config), fields, orders)
    config = {**_follow_layers(source.config, orders), **changed}
    try:
        pruned = build_on_meta(replace(source, config=config))
    except InputError as error:
        fields_text = ", ".join(f"{name}: {value}" for name, value in changed.items())
        raise RefusedError(f"the stock class can't be built with {fields_text}: {error}") from None
    _refuse_other_lengths(original, pruned, layers, changed)
    tensors = tuple(fit_blocks(original, pruned, layers, folds))
    return FittedPlan(original, pruned, config, tensors, orders, tuple(find_misfits(original, pruned, orders)))


def compile_plan(
    source: ModelSource, weights: Weights, layers: Layers, fields: ConfigFields, folds: Folds
) -> NewCheckpoint:
    """What the pruned checkpoint of a model holds, by the names in its files, and its config.

    Raises:
        RefusedError: the stock class can't have these layers in these places.
        InputError: the files do not fit the config.
    """
    return lay_out(fit_plan(source, layers, fields, folds), source, weights)


def lay_out(fitted: FittedPlan, source: ModelSource, weights: Weights) -> NewCheckpoint:
    """A fitted plan by the names in the files of a model; raises as above."""
    orders = fitted.orders
    shapes = {name: tuple(value.shape) for name, value in fitted.original.state_dict().items()}
    unknown: list[NewTensor] = []
    if source.file is None:
        stock_layout(weights, shapes)
        unknown = _unknown_tensors(weights, shapes, orders)
        tensors = [*fitted.tensors, *unknown]
    else:
        layout = learn_original_layout(source.class_name, source.config, weights, shapes)
        wanted = {name: tuple(value.shape) for name, value in fitted.pruned.state_dict().items()}
        tensors = in_original_layout(fitted.tensors, wanted, shapes, layout, orders, weights)
    used = {segment.tensor for tensor in tensors for segment in tensor.segments}
    return NewCheckpoint(
        config=fitted.config,
        tensors=tuple(tensors),
        dropped=tuple(name for name in weights.tensors if name not in used),
        repeated=_count_repeats(orders),
        unknown=tuple(tensor.name for tensor in unknown),
        misfits=fitted.misfits,
    )


def _follow_layers(config: Mapping[str, Any], orders: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """A config whose names of layers (those that a quantiser leaves out, say) are the new ones."""
    own = {name: value for name, value in config.items() if name.startswith("_")}  # of diffusers: class, version, place
    try:
        return own | LayerNames(orders).follow({name: value for name, value in config.items() if name not in own})
    except RefusedError as error:
        raise RefusedError(f"the config is by layer: {error}; {OTHER_BACKEND}") from None


def _refuse_other_lengths(original: nn.Module, pruned: nn.Module, layers: Layers, changed: Mapping[str, Any]) -> None:
    for stack in find_stack_names(original):
        before, after = len(signatures(original, stack)), len(signatures(pruned, stack))
        wanted = len(layers[stack]) if stack in layers else before
        if after != wanted:
            fields = ", ".join(changed)
            raise RefusedError(
                f"{type(original).__name__} makes {stack} follow {fields} too: it would have {after} members where "
                f"{wanted} are needed, and which of its {before} to keep no file says"
            )


def _unknown_tensors(
    weights: Weights, shapes: Mapping[str, Any], orders: Mapping[str, Sequence[int]]
) -> list[NewTensor]:
    """Tensors of the files that the class does not know (scales of fp8 weights, say): they go with their blocks."""
    found = []
    for name, (_, tensor) in weights.tensors.items():
        if name in shapes:
            continue
        segments = (Segment(name, 0, num_rows(tensor.shape)),)
        stack = next((stack for stack in orders if re.match(rf"{re.escape(stack)}\.(0|[1-9][0-9]*)\.", name)), None)
        if stack is None:
            found.append(NewTensor(name, segments))
            continue
        index, _, rest = name.removeprefix(f"{stack}.").partition(".")
        places = [place for place, layer in enumerate(orders[stack]) if f"{layer}" == index]
        found += [NewTensor(f"{stack}.{place}.{rest}", segments) for place in places]
    return found


def _count_repeats(orders: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The blocks that are written more than once, by path, with how often."""
    return {
        f"{stack}.{layer}": list(order).count(layer)
        for stack, order in orders.items()
        for layer in dict.fromkeys(order)
        if list(order).count(layer) > 1
    }
