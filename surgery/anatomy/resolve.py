"""Selectors x Anatomy -> exact names. A selection that matches nothing, or a name that does not exist, is a fault."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from surgery.anatomy.anatomy import Anatomy, BlockKind, Stack
from surgery.spec.nearest import shorten, unknown_text
from surgery.spec.operations import Selection
from surgery.spec.places import Faults
from surgery.spec.selector import Index, Selector, indices_of_part, indices_to_text


@dataclass(frozen=True)
class SelectedLayers:
    """Layers of one stack, ascending."""

    stack: Stack
    indices: tuple[int, ...]


@dataclass(frozen=True)
class SelectedComponent:
    """One component of one block, and the selector that named it."""

    stack: Stack
    index: int
    component: str
    selector: Selector


def resolve_layers(selection: Selection, anatomy: Anatomy, faults: Faults) -> list[SelectedLayers]:
    """The layers of each stack that a selection names, stacks in the order in which they run."""
    found: dict[str, list[int]] = {}
    for selector in selection:
        for stack in find_stacks(selector, anatomy, faults):
            indices = _indices(selector, stack, faults)
            already = found.setdefault(stack.name, [])
            twice = [index for index in indices if index in already]
            if twice:
                names = f"{stack.name}[{indices_to_text(twice)}]"
                faults.add(selector.place, f"{names} is selected twice; name each layer once")
            already.extend(index for index in indices if index not in already)
    return [
        SelectedLayers(stack, tuple(sorted(found[stack.name]))) for stack in anatomy.stacks if found.get(stack.name)
    ]


def resolve_components(selection: Selection, anatomy: Anatomy, faults: Faults) -> list[SelectedComponent]:
    """The components that a selection names. `*` takes those whose output can be replaced."""
    found: list[SelectedComponent] = []
    for selector in selection:
        for stack in find_stacks(selector, anatomy, faults):
            lacking: list[int] = []
            indices = _indices(selector, stack, faults)
            for kind in stack.kinds:
                members = [index for index in indices if stack.kind(index) is kind]
                chosen = _components(selector, kind)
                found.extend(SelectedComponent(stack, index, name, selector) for index in members for name in chosen)
                lacking.extend(() if chosen else members)
            if lacking:
                faults.add(selector.component_place or selector.place, _no_component(selector, stack, lacking))
    seen: set[tuple[str, int, str]] = set()
    twice: dict[tuple[str, str, Selector], list[int]] = {}
    for item in found:
        key = (item.stack.name, item.index, item.component)
        if key in seen:
            twice.setdefault((item.stack.name, item.component, item.selector), []).append(item.index)
        seen.add(key)
    for (stack_name, component, selector), again in twice.items():
        names = f"{stack_name}[{indices_to_text(again)}].{component}"
        faults.add(selector.place, f"{names} is selected twice; name each component once")
    return found


def find_stacks(selector: Selector, anatomy: Anatomy, faults: Faults) -> list[Stack]:
    """The stacks that a selector's stack name, which may hold `*`, stands for."""
    depth = selector.stack.count(".")
    found = [
        stack for stack in anatomy.stacks if stack.name.count(".") == depth and fnmatchcase(stack.name, selector.stack)
    ]
    if not found:
        names = [stack.name for stack in anatomy.stacks]
        faults.add(selector.place, unknown_text("stack", selector.stack, names, f"in {anatomy.class_name}"))
    return found


def _indices(selector: Selector, stack: Stack, faults: Faults) -> list[int]:
    found: list[int] = []
    last = stack.num_blocks - 1
    exists = f"{stack.name} has layers 0 to {last}"
    for part in selector.parts:
        indices = indices_of_part(part, stack.num_blocks)
        if indices is None:
            assert isinstance(part, Index), "only an index can be out of range"
            faults.add(part.place, f"there is no layer {part.value}; {exists}; write an index from 0 to {last}")
            continue
        if not indices:
            faults.add(part.place, f"the range matches no layer; {exists}; ranges are half open, like 4:15")
        twice = [index for index in indices if index in found]
        if twice:
            layers = f"layer {twice[0]} is" if len(twice) == 1 else f"layers {indices_to_text(twice)} are"
            faults.add(part.place, f"{layers} selected twice in {shorten(selector.text)}; name each layer once")
        found.extend(index for index in indices if index not in found)
    return found


def _components(selector: Selector, kind: BlockKind) -> list[str]:
    """The names of the selected components in blocks of one kind."""
    pattern = selector.component or ""
    if "*" not in pattern:
        return [] if kind.find_component(pattern) is None else [pattern]
    depth = pattern.count(".")
    return [name for name in _replaceable(kind) if name.count(".") == depth and fnmatchcase(name, pattern)]


def _replaceable(kind: BlockKind) -> list[str]:
    return [component.name for component in kind.components if component.refusal is None]


def _no_component(selector: Selector, stack: Stack, indices: list[int]) -> str:
    """What to say of blocks, of one kind or several, that have no component of this name."""
    blocks = f"{stack.name}[{indices_to_text(indices)}]"
    pattern = selector.component or ""
    any_name = "*" in pattern
    kinds = [kind for kind in stack.kinds if any(stack.kind(index) is kind for index in indices)]
    every = [_replaceable(kind) if any_name else [component.name for component in kind.components] for kind in kinds]
    known = list(dict.fromkeys(name for names in every for name in names if name.count(".") <= pattern.count(".")))
    if not any_name:
        return unknown_text("component", pattern, known, f"in {blocks}")
    exists = ", ".join(known) or "none"
    return f'"{shorten(pattern)}" matches no component of {blocks} that can be replaced; those are {exists}'
