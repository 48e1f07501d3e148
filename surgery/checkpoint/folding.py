"""A plan's replacements and scales -> folds into weights, found on a small real model of the same class."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from surgery.anatomy.anatomy import Anatomy, Component
from surgery.checkpoint.carriers import (
    find_constant_carriers,
    find_scale_carriers,
    find_used_streams,
    record_calls,
    silence_block,
)
from surgery.checkpoint.fitted_blocks import Folds
from surgery.checkpoint.unrolled import OTHER_BACKEND
from surgery.errors import RefusedError
from surgery.plan.plan import Plan, ReplacedComponent
from surgery.plan.schedule import Layer


def find_folds(
    model: nn.Module,
    kwargs: Mapping[str, Any],
    anatomy: Anatomy,
    plan: Plan,
    layers: Mapping[str, Sequence[Layer]],
) -> Folds:
    """What must become constant, and what is multiplied, for a checkpoint to run this plan.

    `model` is real and small, `kwargs` a call of it; the names that are found hold for every size of the class.

    Raises:
        RefusedError: weights can't carry it; with every reason.
    """
    used = {(stack, layer.index) for stack, written in layers.items() for layer in written}
    replaced = [item for item in plan.replacements if (item.stack, item.index) in used]
    scaled: dict[str, set[float]] = {}
    for stack, written in layers.items():
        for layer in written:
            if layer.scale != 1.0:
                scaled.setdefault(f"{stack}.{layer.index}", set()).add(layer.scale)
    if not replaced and not scaled:
        return Folds({}, {})
    components = {path: _components(anatomy, path) for path in scaled}
    wanted = {path for item in replaced for path in (item.path, f"{item.stack}.{item.index}")} | set(scaled)
    wanted |= {f"{path}.{component.name}" for path, found in components.items() for component in found}
    calls = record_calls(model, sorted(wanted), kwargs)
    constants: dict[str, dict[str, dict[str, str | None]]] = {}
    factors: dict[str, Sequence[str]] = {}
    reasons: list[str] = []
    for item in replaced:
        try:
            block = constants.setdefault(f"{item.stack}.{item.index}", {})
            block.update(_fold_replacement(model, anatomy, item, calls))
        except RefusedError as error:
            reasons.append(f"{item.stack}[{item.index}].{item.component} = {item.kind}: {error}")
    for path, scales in scaled.items():
        try:
            factors[path] = _fold_scale(model, path, scales, components[path], calls)
        except RefusedError as error:
            stack, _, index = path.rpartition(".")
            by = ", ".join(f"{scale:g}" for scale in sorted(scales))
            reasons.append(f"{stack}[{index}] scaled by {by}: {error}")
    if reasons:
        listed = "\n".join(f"  {reason}" for reason in reasons)
        raise RefusedError(f"the weights of {plan.class_name} can't carry this plan:\n{listed}\n{OTHER_BACKEND}")
    return Folds(constants, factors)


def _components(anatomy: Anatomy, path: str) -> list[Component]:
    """The replaceable components of a block that are not within another one."""
    stack_name, _, index = path.rpartition(".")
    stack = anatomy.stack(stack_name)
    found = [component for component in stack.kind(int(index)).components if component.outputs]
    names = {component.name for component in found}
    return [c for c in found if c.num_parameters and not any(c.name.startswith(f"{name}.") for name in names)]


def _fold_replacement(
    model: nn.Module, anatomy: Anatomy, item: ReplacedComponent, calls: Mapping[str, Any]
) -> dict[str, dict[str, str | None]]:
    """By module within the block, by tensor: the mean that its values become, None for zero."""
    stack = anatomy.stack(item.stack)
    known = stack.kind(item.index).find_component(item.component)
    assert known is not None, "a plan is made for an anatomy"
    component, block = model.get_submodule(item.path), f"{item.stack}.{item.index}"
    streams = find_used_streams(model.get_submodule(block), known, calls[block])
    carriers = find_constant_carriers(component, known, calls[item.path], streams, with_mean=item.kind == "mean")
    folded: dict[str, dict[str, str | None]] = {}
    for stream, name in carriers.items():
        inside = ".".join(part for part in (item.component, name) if part)
        mean = f"{item.path}/{stream}" if item.kind == "mean" else None
        folded[inside] = {
            tensor: mean if tensor == "bias" else None
            for tensor, _ in component.get_submodule(name).named_parameters(recurse=False)
        }
    return folded


def _fold_scale(
    model: nn.Module, path: str, scales: set[float], components: Sequence[Component], calls: Mapping[str, Any]
) -> tuple[str, ...]:
    ends, block = [], model.get_submodule(path)
    for component in components:
        name = f"{path}.{component.name}"
        try:
            streams = find_used_streams(block, component, calls[path])
            found = find_constant_carriers(model.get_submodule(name), component, calls[name], streams, with_mean=False)
        except (RefusedError, KeyError):
            continue
        ends += [".".join(part for part in (component.name, inner) if part) for inner in found.values()]
    if scales == {0.0}:
        return silence_block(block, calls[path], ends)
    return find_scale_carriers(block, calls[path], ends)
