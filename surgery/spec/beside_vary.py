"""What stands beside `vary`: the variable along which operations add up, and those over which rows are averaged.

`cumulative: s` adds up in the order in which the values are written; `cumulative: {over: s, order: backward}` from the
last; and with the name of a file for the order by what was measured of the layers.
"""

import re
from dataclasses import dataclass

from surgery.spec.document import Entries, Items, Scalar, Value
from surgery.spec.fields import check_keys, describe, read_text
from surgery.spec.grammar import CUMULATIVE
from surgery.spec.nearest import unknown_text
from surgery.spec.places import Faults, Place
from surgery.spec.vary import TEMPLATE, Variable

FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class Cumulative:
    """The variable along which operations add up, and in which order: forward, backward, or that of a file.

    A file is relative to the spec's folder; `place` is where the order stands.
    """

    over: str
    order: str
    place: Place


def read_cumulative(value: Value, variables: tuple[Variable, ...], faults: Faults) -> Cumulative | None:
    """A variable's name, or a mapping of it and an order; None (and a fault) where it is neither."""
    if not isinstance(value, Entries):
        over = _read_variable(value, "cumulative", variables, faults)
        return None if over is None else Cumulative(over, FORWARD, value.place)
    entries = check_keys(value, CUMULATIVE, "cumulative", faults)
    named, order = entries.get("over"), entries.get("order")
    if named is None:
        faults.add(value.place, "over is missing in cumulative; write the variable, like {over: s, order: backward}")
        return None
    over = _read_variable(named, "cumulative", variables, faults)
    told = FORWARD if order is None else read_text(order, "order", faults)
    return None if over is None or told is None else Cumulative(over, told, (order or value).place)


def read_average(
    value: Value, variables: tuple[Variable, ...], operations: Value | None, along: str | None, faults: Faults
) -> tuple[str, ...]:
    """The names of variables that operations use; `along` is the one along which operations add up."""
    items = value.items if isinstance(value, Items) else (value,)
    if not items:
        faults.add(value.place, "average is an empty list; write variables, like [seed]")
    found: list[str] = []
    used = _used(operations, variables)
    for item in items:
        name = _read_variable(item, "average", variables, faults)
        if name is None:
            continue
        if name in found:
            faults.add(item.place, f"{name} is averaged over twice; write it once")
        elif name == along:
            faults.add(item.place, f"operations add up along {name}; average over another variable")
        elif name not in used:
            advice = f"write {{{name}}} in one (noise is set by --seed)"
            faults.add(item.place, f"no operation uses {name}, so that there is nothing to average; {advice}")
        found.append(name)
    return tuple(found)


def _read_variable(value: Value, what: str, variables: tuple[Variable, ...], faults: Faults) -> str | None:
    names = [variable.name for variable in variables if not variable.cases]
    if isinstance(value, Scalar) and value.text in names:
        return value.text
    shown = value.text if isinstance(value, Scalar) else describe(value)
    faults.add(value.place, unknown_text(f"variable for {what}", shown, names))
    return None


def _used(value: Value | None, variables: tuple[Variable, ...]) -> set[str]:
    """The words in the expressions of operations and of all cases."""
    match value:
        case Scalar(str(), text):
            return {word for expression in TEMPLATE.findall(text) for word in re.findall(r"\w+", expression)}
        case Items(items):
            cases = [case for variable in variables for _, case in variable.cases]
            return set().union(*(_used(item, ()) for item in (*items, *cases)))
        case Entries(entries):
            return set().union(*(_used(item, ()) for _, item in entries))
    return set()
