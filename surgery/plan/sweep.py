"""A spec with `vary` x Anatomy -> a spec for each point of the sweep."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.resolve import resolve_layers
from surgery.errors import InputError
from surgery.spec.document import Items, Scalar
from surgery.spec.limits import MAX_SWEPT_OPERATIONS, MAX_VARIANTS
from surgery.spec.load import Spec
from surgery.spec.operations import AnyOperation
from surgery.spec.places import Faults
from surgery.spec.read_operations import OperationReader
from surgery.spec.selector import FIRST, read_selector
from surgery.spec.vary import Binding, Sweep, Variable, substitute

MANY = 10**12  # what is larger is not written out


@dataclass(frozen=True)
class _Value:
    """What a variable may stand for, and how a variant's name says it."""

    text: str
    bound: Binding | Items

    @property
    def told(self) -> Binding:
        """The value itself; of a case its name."""
        return self.text if isinstance(self.bound, Items) else self.bound


Point = Mapping[str, _Value]


def expand_sweep(spec: Spec, anatomy: Anatomy) -> tuple[Spec, ...]:
    """A spec for each combination of values, the last variable fastest; a spec without `vary` is the only one.

    Along a `cumulative` variable a point has the operations of all values before its own, and then its own.

    Raises:
        SpecError: a variable's selector does not fit the model.
        InputError: there are more combinations than anybody can mean.
    """
    sweep = spec.sweep
    if sweep is None:
        return (spec,)
    faults = Faults(spec.file)
    domains = {variable.name: _domain(variable, sweep, anatomy, faults) for variable in sweep.variables}
    faults.raise_if_any()
    number = math.prod(len(values) for values in domains.values())
    if number > MAX_VARIANTS:
        shown = f"{number:,}" if number < MANY else f"over {MANY:,}"
        raise InputError(f"{spec.file} has {shown} variants; write a sweep of at most {MAX_VARIANTS:,}")
    points = [dict(zip(domains, values, strict=True)) for values in itertools.product(*domains.values())]
    reader = OperationReader(sweep.groups, faults)
    found = tuple(_at(spec, sweep, point, domains, reader) for point in points)
    faults.raise_if_any()
    return found


def _domain(variable: Variable, sweep: Sweep, anatomy: Anatomy, faults: Faults) -> tuple[_Value, ...]:
    if variable.cases:
        return tuple(_Value(name, operations) for name, operations in variable.cases)
    if variable.selector is None:
        return tuple(_Value(str(value), value) for value in variable.values)
    scalar = Scalar(variable.selector, variable.selector, variable.place)
    selectors = read_selector(scalar, sweep.groups, faults)
    if any(selector.model not in (None, FIRST) for selector in selectors):
        fact = f"the variable {variable.name} has layers of another transformer than the first"
        faults.add(variable.place, f"{fact}; leave the prefix out here, or write range(0, 12)")
    chosen = resolve_layers(selectors, anatomy, faults)
    if len(chosen) > 1:
        stacks = " and ".join(layers.stack.name for layers in chosen)
        faults.add(variable.place, f"the variable {variable.name} has layers of {stacks}; name those of one stack")
    return tuple(_Value(str(index), index) for layers in chosen for index in layers.indices)


def _at(
    spec: Spec, sweep: Sweep, point: Point, domains: Mapping[str, tuple[_Value, ...]], reader: OperationReader
) -> Spec:
    operations: tuple[AnyOperation, ...] = ()
    for each in _accumulated(sweep.cumulative, point, domains):
        bindings = {name: value.bound for name, value in each.items()}
        operations += reader.read_all(substitute(sweep.operations, bindings, reader.faults))
        if reader.num_read > MAX_SWEPT_OPERATIONS:
            fact = f"over {MAX_SWEPT_OPERATIONS:,} operations in all its variants together"
            raise InputError(f"{spec.file} has {fact}; write a smaller sweep")
    told = tuple((name, value.told) for name, value in point.items())
    return replace(spec, operations=operations, sweep=None, point=told)


def _accumulated(variable: str | None, point: Point, domains: Mapping[str, tuple[_Value, ...]]) -> Iterator[Point]:
    """The points whose operations add up to those of a point."""
    if variable is None:
        yield point
        return
    for value in domains[variable]:
        yield {**point, variable: value}
        if value is point[variable]:
            return
