"""The `vary` section: variables, cases, and the substitution of `{s+1}` in texts.

A variable is a list of numbers or words, `range(0, 13)`, a selector (its layers), or a mapping of named cases, each a
list of operations. `{...}` holds integer arithmetic (+ - * // %, brackets) over variables.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from surgery.spec.document import Entries, Items, Scalar, Value
from surgery.spec.fields import describe
from surgery.spec.limits import MAX_NUMBER, MAX_TEXT, MAX_VALUES, MAX_VALUES_A_VARIABLE
from surgery.spec.nearest import shorten, unknown_text
from surgery.spec.places import Faults, Place
from surgery.spec.selector import Groups

RANGE = re.compile(r"range\(\s*(-?\d{1,7})\s*(?:,\s*(-?\d{1,7})\s*)?(?:,\s*(-?\d{1,7})\s*)?\)")
TEMPLATE = re.compile(r"\{([^{}]*)\}")
ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}

Binding = int | float | str
Bindings = Mapping[str, "Binding | Items | None"]  # None: the variable has a fault, and what it stands for too


@dataclass(frozen=True)
class Variable:
    """Values in order; or cases; or the text of a selector, whose layers only a model tells; or nothing: a fault."""

    name: str
    place: Place
    values: tuple[Binding, ...] = ()
    cases: tuple[tuple[str, Items], ...] = ()
    selector: str | None = None

    @property
    def samples(self) -> tuple[Binding | Items | None, ...]:
        """What to check the language with; a selector's layers stand in as 0."""
        return tuple(case for _, case in self.cases) or self.values or ((None,) if self.selector is None else (0,))

    @property
    def told(self) -> tuple[Binding, ...]:
        """The values as the name of a point says them, cases by their names; none of a selector."""
        return tuple(name for name, _ in self.cases) or self.values


@dataclass(frozen=True)
class Sweep:
    """The `vary` section of a spec, with its operations as they are written."""

    variables: tuple[Variable, ...]
    operations: Value
    groups: Groups


def read_variables(value: Value, faults: Faults) -> tuple[Variable, ...]:
    """The variables of a `vary` section."""
    if not isinstance(value, Entries) or not value.entries:
        faults.add(value.place, f"vary is {describe(value)}; write variables, like s: range(0, 13)")
        return ()
    return tuple(_read_variable(key, item, faults) or Variable(key.text, key.place) for key, item in value.entries)


def _read_variable(key: Scalar, value: Value, faults: Faults) -> Variable | None:
    if not key.text.isidentifier():
        faults.add(key.place, f'"{shorten(key.text)}" is no name for a variable; write a word of letters and digits')
        return None
    match value:
        case Items(items) if items:
            return _read_list(key, items, faults)
        case Entries(entries) if entries:
            return _read_cases(key, value, faults)
        case Scalar(str(), text) if RANGE.fullmatch(text.strip()):
            return _read_range(key, value, faults)
        case Scalar(str(), text) if "[" in text:
            return Variable(key.text, key.place, selector=text)
    faults.add(
        value.place,
        f"the variable {key.text} is {describe(value)}; write a list, range(0, 13), a selector, or cases by name",
    )
    return None


def _read_list(key: Scalar, items: tuple[Value, ...], faults: Faults) -> Variable | None:
    bound: list[Binding] = []
    for item in items:
        if isinstance(item, Scalar) and item.value is not None and not isinstance(item.value, bool):
            bound.append(item.value)
        else:
            faults.add(item.place, f"the variable {key.text} takes {describe(item)}; write a number or a text")
    return Variable(key.text, key.place, tuple(bound)) if bound else None


def _read_cases(key: Scalar, value: Entries, faults: Faults) -> Variable:
    cases = []
    for name, operations in value.entries:
        if isinstance(operations, Items):
            cases.append((name.text, operations))
        else:
            faults.add(
                operations.place, f"the case {shorten(name.text)} is {describe(operations)}; write a list of operations"
            )
    return Variable(key.text, key.place, cases=tuple(cases) or (("", Items((), value.place)),))


def _read_range(key: Scalar, value: Scalar, faults: Faults) -> Variable | None:
    match = RANGE.fullmatch(value.text.strip())
    assert match is not None, "the caller has matched it"
    numbers = [int(group) for group in match.groups() if group is not None]
    if len(numbers) == 3 and numbers[2] == 0:
        faults.add(value.place, "the step of a range is 0; write a positive or negative step")
        return None
    values = range(*numbers)
    if not 0 < len(values) <= MAX_VALUES_A_VARIABLE:
        fact = "is empty" if not values else f"has {len(values):,} values"
        faults.add(value.place, f"{shorten(value.text)} {fact}; write one of 1 to {MAX_VALUES_A_VARIABLE:,} values")
        return None
    return Variable(key.text, key.place, tuple(values))


def samples(variables: tuple[Variable, ...]) -> Iterator[Bindings]:
    """Bindings that use every value and every case of every variable at least once."""
    first = {variable.name: variable.samples[0] for variable in variables}
    yield dict(first)
    for variable in variables:
        for value in variable.samples[1:]:
            yield {**first, variable.name: value}


def substitute(value: Value, bindings: Bindings, faults: Faults) -> Value:
    """The value with every `{...}` worked out, and every name of cases in a list replaced by the case's operations."""
    try:
        return _Substitution(faults).fill(value, bindings)
    except _TooManyValuesError:
        fact = f"there are over {MAX_VALUES:,} values once the cases are written out"
        faults.add_final(value.place, f"{fact}; write fewer or smaller ones")
        return Items((), value.place)


class _Substitution:
    """One `substitute`. Cases may name cases, so that what they come to can double with each of them: it is counted."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.num_values = 0

    def fill(self, value: Value, bindings: Bindings) -> Value:
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            raise _TooManyValuesError
        match value:
            case Items(items, place):
                return Items(tuple(filled for item in items for filled in self.fill_item(item, bindings)), place)
            case Entries(entries, place):
                return Entries(tuple((key, self.fill(item, bindings)) for key, item in entries), place)
            case Scalar(str(), text) if "{" in text:
                return _substitute_text(value, bindings, self.faults)
        return value

    def fill_item(self, item: Value, bindings: Bindings) -> tuple[Value, ...]:
        """What stands in a list in place of an item: nothing for a case with a fault."""
        case = bindings.get(item.text, "") if isinstance(item, Scalar) else ""
        if case is None:
            return ()
        if isinstance(case, Items) and isinstance(item, Scalar):
            inner = self.fill(case, {**bindings, item.text: ""})
            return inner.items if isinstance(inner, Items) else ()
        return (self.fill(item, bindings),)


class _TooManyValuesError(Exception):
    """There are more values than a spec can have."""


def _substitute_text(scalar: Scalar, bindings: Bindings, faults: Faults) -> Scalar:
    """Nothing where an expression has a fault, or a variable in it: whatever is read of it only follows from that."""
    whole = TEMPLATE.fullmatch(scalar.text)
    try:
        if whole is not None:
            result = _evaluate(whole.group(1), bindings)
            return replace(scalar, value=result, text=str(result), is_made=True)
        text = _fill_text(scalar.text, bindings)
        return replace(scalar, value=text, text=text, is_made=True)
    except _BadExpressionError as error:
        faults.add_final(scalar.place, str(error))
    except _OpenError:
        faults.settle(scalar.place)
    return replace(scalar, value=None)


def _fill_text(text: str, bindings: Bindings) -> str:
    """A text with its expressions worked out."""
    *pieces, end = re.split(TEMPLATE, text)
    found: list[str] = []
    length = len(end)
    for before, expression in zip(pieces[::2], pieces[1::2], strict=True):
        filled = before + str(_evaluate(expression, bindings))
        length += len(filled)
        if length > MAX_TEXT:
            raise _BadExpressionError(f"with its variables this text has over {MAX_TEXT:,} characters; write less")
        found.append(filled)
    return "".join([*found, end])


def _evaluate(text: str, bindings: Bindings) -> Binding:
    """The value of one `{...}`."""
    bound = bindings.get(text.strip(), 0)
    if bound is None:
        raise _OpenError
    if text.strip() in bindings and isinstance(bound, (int, float, str)):
        return bound
    try:
        return _work_out(ast.parse(text.strip(), mode="eval").body, bindings)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        fact = f'"{{{shorten(text)}}}" is no integer arithmetic'
        raise _BadExpressionError(f"{fact}; write it like {{s+1}} or {{27-s}}") from None
    except ZeroDivisionError:
        fact = f'"{{{shorten(text)}}}" divides by zero for some values'
        raise _BadExpressionError(f"{fact}; leave those out") from None


class _BadExpressionError(Exception):
    """An expression that the language does not have; the text of its fault."""


class _OpenError(Exception):
    """An expression with a variable that has a fault of its own."""


def _work_out(node: ast.expr, bindings: Bindings) -> int:
    match node:
        case ast.Constant(int() as number) if not isinstance(number, bool) and abs(number) <= MAX_NUMBER:
            return number
        case ast.Name(name):
            bound = bindings.get(name)
            if name not in bindings:
                raise _BadExpressionError(unknown_text("variable", name, bindings))
            if bound is None:
                raise _OpenError
            if isinstance(bound, int):
                return bound
            raise _BadExpressionError(f"the variable {name} is no integer; arithmetic takes integers only")
        case ast.UnaryOp(ast.USub(), operand):
            return -_work_out(operand, bindings)
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            result = ARITHMETIC[type(op)](_work_out(left, bindings), _work_out(right, bindings))
            if abs(result) <= MAX_NUMBER:
                return result
    raise _BadExpressionError(
        f'"{shorten(ast.unparse(node))}" can\'t be worked out; between {{ and }} write integers, variables, '
        "+ - * // % and brackets"
    )
