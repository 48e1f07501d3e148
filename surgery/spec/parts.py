"""A spec -> what of it is for each of a pipeline's two transformers: a spec for either."""

from dataclasses import replace
from typing import assert_never

from surgery.spec import operations as ops
from surgery.spec.load import Spec
from surgery.spec.places import Place
from surgery.spec.selector import BOTH, FIRST, SECOND, Selector


def edits_second(spec: Spec) -> bool:
    """Whether an operation is for a second transformer, where there is one."""
    return any(operation_of_part(operation, SECOND) is not None for operation in spec.operations)


def places_in_second(spec: Spec) -> tuple[Place, ...]:
    """Where the second transformer is named, so that there must be one: `*` stands for as many as there are."""
    return tuple(place for operation in spec.operations for model, place in _models_of(operation) if model == SECOND)


def spec_of_part(spec: Spec, part: str) -> Spec:
    """The spec with what is for one of two transformers, as if that were the only one.

    Of which transformer the means and the groups are that it takes from profiles, their files say.
    """
    found = (operation_of_part(operation, part) for operation in spec.operations)
    kept = tuple(operation for operation in found if operation is not None)
    return replace(spec, operations=kept)


def operation_of_part(operation: ops.AnyOperation, part: str) -> ops.AnyOperation | None:
    """An operation with the selectors that are for one transformer; None without any."""
    match operation:
        case ops.Order():
            return replace(operation, model=None) if _is_for(operation.model, part) else None
        case ops.Replace():
            components = _selection_of_part(operation.components, part)
            return replace(operation, components=components) if components else None
        case ops.OnLayers():
            layers = _selection_of_part(operation.layers, part)
            return replace(operation, layers=layers) if layers else None
        case _:
            assert_never(operation)


def selection_of(operation: ops.AnyOperation) -> tuple[Selector, ...]:
    """The selectors of an operation; none of `order`, which names a stack."""
    match operation:
        case ops.Order():
            return ()
        case ops.Replace():
            return operation.components
        case ops.OnLayers():
            return operation.layers
        case _:
            assert_never(operation)


def _models_of(operation: ops.AnyOperation) -> list[tuple[str | None, Place]]:
    if isinstance(operation, ops.Order):
        return [(operation.model, operation.stack_place)]
    return [(selector.model, selector.place) for selector in selection_of(operation)]


def _selection_of_part(selection: ops.Selection, part: str) -> ops.Selection:
    return tuple(replace(selector, model=None) for selector in selection if _is_for(selector.model, part))


def _is_for(model: str | None, part: str) -> bool:
    return model == BOTH or (model or FIRST) == part
