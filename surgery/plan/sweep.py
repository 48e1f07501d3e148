"""A spec with `vary` x Anatomy -> a spec for each point of the sweep."""

import itertools
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.resolve import SelectedLayers, resolve_layers
from surgery.errors import InputError, SpecError
from surgery.plan.cumulative_order import read_order
from surgery.spec.document import Items, Scalar, Value
from surgery.spec.limits import MAX_SWEPT_OPERATIONS, MAX_VARIANTS
from surgery.spec.load import Spec
from surgery.spec.operations import AnyOperation
from surgery.spec.places import Faults, Place
from surgery.spec.read_operations import OperationReader
from surgery.spec.selector import FIRST, read_selector
from surgery.spec.spec_name import Pairs, name_of_point, pick_value
from surgery.spec.vary import Binding, Sweep, Variable, substitute

MANY = 10**12  # what is larger is not written out
NAMED = 3  # points that a message names


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
Domains = Mapping[str, tuple[_Value, ...]]
Path = Callable[[Point], Iterable[Point]]  # a point -> those whose operations it has


def expand_sweep(spec: Spec, anatomy: Anatomy) -> tuple[Spec, ...]:
    """A spec for each combination of values, the last variable fastest; a spec without `vary` is the only one.

    So is a point that the spec's name asked for. Along a `cumulative` variable a point has the operations of all values
    before its own in their order, and then its own.

    Raises:
        SpecError: a variable's selector does not fit the model.
        InputError: there are more combinations than anybody can mean, or not the point that was asked for.
    """
    sweep = spec.sweep
    if sweep is None:
        return (spec,)
    faults = Faults(spec.file)
    domains = {variable.name: _domain(variable, sweep, anatomy, faults) for variable in sweep.variables}
    faults.raise_if_any()
    points = _all_points(spec, domains) if spec.named is None else [_named_point(spec, spec.named, domains)]
    reader = OperationReader(sweep.groups, faults)
    path = _path_of(spec, sweep, domains, anatomy)
    found = tuple(_at(spec, sweep, point, path, reader) for point in points)
    faults.raise_if_any()
    return found


def only_point(spec: Spec, anatomy: Anatomy) -> Spec:
    """A spec that is no sweep, or the point of it that its name asked for.

    Raises:
        SpecError: it is a sweep, and its name asks for no point; or as `expand_sweep`.
    """
    if spec.sweep is None or spec.named is not None:
        return expand_sweep(spec, anatomy)[0]
    points = expand_sweep(spec, anatomy)
    names = [shlex.quote(name_of_point(spec.path, point.point)) for point in points[:NAMED]]
    more = ", ..." if len(points) > NAMED else ""
    place = spec.sweep.variables[0].place
    fact = f"a sweep (vary) stands for {len(points):,} specs; name the one that is meant"
    raise SpecError.of(f"{spec.file}:{place.line}:{place.column}: {fact}: {', '.join(names)}{more}")


def count_points(spec: Spec, anatomy: Anatomy) -> int:
    """How many variants a spec stands for, before any is made: one where it is no sweep, or a point of one.

    Raises:
        SpecError: a variable's selector does not fit the model.
    """
    if spec.sweep is None or spec.named is not None:
        return 1
    faults = Faults(spec.file)
    number = math.prod(len(_domain(variable, spec.sweep, anatomy, faults)) for variable in spec.sweep.variables)
    faults.raise_if_any()
    return number


def count_text(number: int) -> str:
    """A number of variants; what nobody can mean is not written out."""
    return f"{number:,}" if number < MANY else f"over {MANY:,}"


def _all_points(spec: Spec, domains: Domains) -> list[Point]:
    number = math.prod(len(values) for values in domains.values())
    if number > MAX_VARIANTS:
        raise InputError(f"{spec.file} has {count_text(number)} variants; write a sweep of at most {MAX_VARIANTS:,}")
    return [dict(zip(domains, values, strict=True)) for values in itertools.product(*domains.values())]


def _named_point(spec: Spec, named: Pairs, domains: Domains) -> Point:
    try:
        return {
            name: values[pick_value(name, dict(named)[name], [v.told for v in values])]
            for name, values in domains.items()
        }
    except InputError as error:
        raise InputError(f"{shlex.quote(name_of_point(spec.path, named))}: {error}") from None


def _domain(variable: Variable, sweep: Sweep, anatomy: Anatomy, faults: Faults) -> tuple[_Value, ...]:
    if variable.cases:
        return tuple(_Value(name, operations) for name, operations in variable.cases)
    if variable.selector is None:
        return tuple(_Value(str(value), value) for value in variable.values)
    chosen = _layers_of(variable, sweep, anatomy, faults)
    if len(chosen) > 1:
        stacks = " and ".join(layers.stack.name for layers in chosen)
        faults.add(variable.place, f"the variable {variable.name} has layers of {stacks}; name those of one stack")
    return tuple(_Value(str(index), index) for layers in chosen for index in layers.indices)


def _at(spec: Spec, sweep: Sweep, point: Point, path: Path, reader: OperationReader) -> Spec:
    operations: tuple[AnyOperation, ...] = ()
    written: list[Value] = []
    for each in path(point):
        bindings = {name: value.bound for name, value in each.items()}
        filled = substitute(sweep.operations, bindings, reader.faults)
        operations += reader.read_all(filled)
        written += filled.items if isinstance(filled, Items) else ()
        if reader.num_read > MAX_SWEPT_OPERATIONS:
            fact = f"over {MAX_SWEPT_OPERATIONS:,} operations in all its variants together"
            raise InputError(f"{spec.file} has {fact}; write a smaller sweep")
    told = tuple((name, value.told) for name, value in point.items())
    items = Items(tuple(written), sweep.operations.place)
    return replace(spec, operations=operations, sweep=None, point=told, written=items)


def _path_of(spec: Spec, sweep: Sweep, domains: Domains, anatomy: Anatomy) -> Path:
    """What leads to a point: the points whose operations add up to its own, itself the last."""
    cumulative = spec.cumulative
    if cumulative is None:
        return lambda point: (point,)
    over, values = cumulative.over, domains[cumulative.over]
    (variable,) = (known for known in sweep.variables if known.name == over)
    with _told_at(spec.file, cumulative.place):
        stack = _stack_of(variable, sweep, anatomy)
        order = read_order(cumulative, spec.folder, anatomy, stack, [value.told for value in values])

    def path(point: Point) -> Iterator[Point]:
        with _told_at(spec.file, cumulative.place):
            numbers = order({name: value.told for name, value in point.items() if name != over})
        for number in numbers:
            yield {**point, over: values[number]}
            if values[number] is point[over]:
                return

    return path


@contextmanager
def _told_at(file: str, place: Place) -> Iterator[None]:
    """What is wrong with a file that a spec names is a fault of the spec, where it names it."""
    try:
        yield
    except InputError as error:
        raise SpecError.of(f"{file}:{place.line}:{place.column}: {error}") from None


def _stack_of(variable: Variable, sweep: Sweep, anatomy: Anatomy) -> str | None:
    """The stack that a variable has layers of; None where it is a list of numbers."""
    chosen = _layers_of(variable, sweep, anatomy, Faults(""))
    return chosen[0].stack.name if chosen else None


def _layers_of(variable: Variable, sweep: Sweep, anatomy: Anatomy, faults: Faults) -> list[SelectedLayers]:
    if variable.selector is None:
        return []
    scalar = Scalar(variable.selector, variable.selector, variable.place)
    selectors = read_selector(scalar, sweep.groups, faults)
    if any(selector.model not in (None, FIRST) for selector in selectors):
        fact = f"the variable {variable.name} has layers of another transformer than the first"
        faults.add(variable.place, f"{fact}; leave the prefix out here, or write range(0, 12)")
    return resolve_layers(selectors, anatomy, faults)
