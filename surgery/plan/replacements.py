"""Whether a component can be replaced: why not, as a text that follows after its name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from surgery.anatomy.anatomy import Component
from surgery.anatomy.resolve import SelectedComponent
from surgery.plan.plan import ReplacedComponent


@dataclass(frozen=True)
class MeanValues:
    """What a plan knows of a file of means: its hash, and the number of values of each `component/stream`.

    `misfit` says why it has none for this transformer, of those that a pipeline has.
    """

    digest: str
    widths: Mapping[str, int]
    misfit: str | None = None


def refusal_of_component(item: SelectedComponent, kind: str) -> str | None:
    """Why the component itself can't be replaced so; None if it can."""
    component = component_of(item)
    if component.refusal is not None:
        return f"can't be replaced: {component.refusal}"
    if not component.outputs:
        return "can't be replaced without example inputs for its class: its streams are unknown"
    uneven = [out for out in component.outputs if out.in_channels != out.out_channels]
    if kind == "input" and uneven:
        shapes = f"{uneven[0].in_channels} channels in, {uneven[0].out_channels} out"
        return f"can't be replaced with its input ({shapes}); write with: zero"
    return None


def overlap(item: SelectedComponent, others: Iterable[ReplacedComponent]) -> str | None:
    """Why it can't be replaced beside those that are; None if it can."""
    for other in (other for other in others if (other.stack, other.index) == (item.stack.name, item.index)):
        name = other.component
        if name == item.component:
            return "is replaced twice; keep one of the two"
        if name.startswith(f"{item.component}.") or item.component.startswith(f"{name}."):
            return f"and {name} are both replaced, and one holds the other; keep one"
    return None


def means_refusal(item: SelectedComponent, means: MeanValues | None) -> str | None:
    """Why a file of means has no vector of the right width for every stream of a component; None if it has."""
    if means is None:
        return "takes its means from a profile; write profile: FILE in the spec, or --profile"
    if means.misfit is not None:
        return f"takes its means from a profile of its own transformer, and {means.misfit}; give that of this one"
    for output in component_of(item).outputs:
        width = means.widths.get(f"{item.stack.name}.{item.index}.{item.component}/{output.stream}")
        if width is None:
            return f"has no mean of {output.stream} in the profile; profile it, or write with: zero"
        if width != output.out_channels:
            return (
                f"has {output.out_channels} channels of {output.stream}, but {width} means in the profile; "
                "make the profile with this model"
            )
    return None


def component_of(item: SelectedComponent) -> Component:
    """The component that is selected."""
    component = item.stack.kind(item.index).find_component(item.component)
    assert component is not None, "resolve_components returns what exists"
    return component
