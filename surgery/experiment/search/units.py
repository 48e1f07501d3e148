"""An anatomy and what may be chosen -> the edits that a search chooses among."""

from collections.abc import Sequence
from typing import Literal, get_args

from surgery.anatomy.anatomy import Anatomy, BlockKind
from surgery.anatomy.resolve import resolve_components, resolve_layers
from surgery.errors import InputError
from surgery.experiment.search.edits import ALWAYS, Edit
from surgery.spec.document import Scalar
from surgery.spec.nearest import unknown_text
from surgery.spec.places import Faults, Place
from surgery.spec.selector import read_selector

Units = Literal["blocks", "components", "both"]
UNITS: tuple[Units, ...] = get_args(Units)


def edits_of(anatomy: Anatomy, units: str, forbid: Sequence[str], num_windows: int) -> tuple[Edit, ...]:
    """All edits of these units but the forbidden ones, in each window where there are several.

    Components are those of whole blocks (`attn1`, not `attn1.to_q`) whose output can be replaced.

    Raises:
        InputError: there are no such units, or a forbidden layer or component does not exist.
    """
    if units not in UNITS:
        raise InputError(unknown_text("unit", units, UNITS))
    forbidden = read_forbidden(forbid, anatomy)
    windows = range(num_windows) if num_windows > 1 else (ALWAYS,)
    found = []
    for stack in anatomy.stacks:
        if stack.refusal is not None:
            continue
        for index in range(stack.num_blocks):
            names = ([""] if units != "components" else []) + (
                _components(stack.kind(index)) if units != "blocks" else []
            )
            allowed = [name for name in names if not _is_forbidden((stack.name, index, name), forbidden)]
            found += [Edit(stack.name, index, name, window) for window in windows for name in allowed]
    return tuple(found)


def _components(kind: BlockKind) -> list[str]:
    return [each.name for each in kind.components if each.refusal is None and each.outputs and "." not in each.name]


Place3 = tuple[str, int, str]


def _is_forbidden(place: Place3, forbidden: frozenset[Place3]) -> bool:
    """Whether it is named itself; or its block; or, of a block, one of its components, which would go with it."""
    stack, index, name = place
    if name:
        return place in forbidden or (stack, index, "") in forbidden
    return any((stack, index) == other[:2] for other in forbidden)


def read_forbidden(texts: Sequence[str], anatomy: Anatomy) -> frozenset[Place3]:
    """The layers and components that selectors name: (stack, index, component).

    Raises:
        InputError: a selector is malformed, or names what the model does not have.
    """
    found: set[Place3] = set()
    for text in texts:
        faults = Faults("--forbid")
        for selector in read_selector(Scalar(text, text, Place(1, 1)), {}, faults):
            if selector.component is None:
                for layers in resolve_layers((selector,), anatomy, faults):
                    found |= {(layers.stack.name, index, "") for index in layers.indices}
            else:
                parts = resolve_components((selector,), anatomy, faults)
                found |= {(part.stack.name, part.index, part.component) for part in parts}
        if faults.found:
            raise InputError(f"--forbid {text}: {next(iter(faults.found))[1]}")
    return frozenset(found)
