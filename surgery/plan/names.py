"""The names in a spec that a model does not have: what can be told of a spec that has other faults too.

Whether operations fit each other is not looked at: an operation that was misspelt is missing from what they would do.
"""

from typing import assert_never

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.resolve import find_stacks, resolve_components, resolve_layers
from surgery.plan.profile_groups import find_profile_groups, with_groups
from surgery.spec import operations as ops
from surgery.spec.load import Spec
from surgery.spec.places import Faults
from surgery.spec.selector import Selector


def selectors_of(operation: ops.AnyOperation) -> tuple[Selector, ...]:
    """What an operation selects; for `order`, its stack."""
    match operation:
        case ops.Replace():
            return operation.components
        case ops.Order():
            return (Selector(operation.stack, operation.stack_place, operation.stack, (), model=operation.model),)
        case ops.OnLayers():
            return operation.layers
        case _:
            assert_never(operation)


def find_name_faults(spec: Spec, anatomy: Anatomy) -> Faults:
    """The faults of all stacks, layers and components that the operations name; none for sweeps."""
    faults = Faults(spec.file)
    groups = find_profile_groups(spec, anatomy, faults)
    named = (with_groups(operation, groups, faults) for operation in (() if spec.variables else spec.operations))
    for operation in (operation for operation in named if operation is not None):
        selectors = selectors_of(operation)
        match operation:
            case ops.Replace():
                resolve_components(selectors, anatomy, faults)
            case ops.Order():
                find_stacks(selectors[0], anatomy, faults)
            case ops.OnLayers():
                resolve_layers(selectors, anatomy, faults)
            case _:
                assert_never(operation)
    return faults
