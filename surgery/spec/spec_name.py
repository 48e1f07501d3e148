"""The names of specs: a file, and behind a `#` the point of its sweep that is meant, like `file.yaml#s=3,how=skip`."""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from surgery.errors import InputError
from surgery.files import is_there
from surgery.spec.nearest import nearest, shorten, unknown_text
from surgery.spec.vary import Binding, Variable

STANDARD_INPUT, STDIN_NAME = "-", "<stdin>"  # as a command is given it, and as messages call it
STDIN_FILE = "/dev/stdin"  # a point of standard input: an argument that begins with - would be an option
SIGN = "#"
SUFFIXES = (".yaml", ".yml")
SHOWN = 8  # values, or names of points, that a message lists

Pairs = tuple[tuple[str, str], ...]  # the variables of a point with the texts of their values


@dataclass(frozen=True)
class SpecName:
    """Where a spec is, and the text that names a point of it; None where the whole spec is meant."""

    path: str
    point: str | None = None

    @property
    def file(self) -> str:
        """What messages call the file."""
        return STDIN_NAME if self.path == STANDARD_INPUT else self.path


def parse_spec_name(given: str | Path) -> SpecName:
    """The name of a spec, as any command takes it. A file whose own name holds a `#` is that file.

    The point begins behind the first `#` that stands behind standard input, a file that is there, or `.yaml`.
    """
    text = str(given)
    if SIGN not in text or is_there(Path(text)):
        return SpecName(text)
    starts = [text[: match.start()] for match in re.finditer(SIGN, text)]
    there = (start for start in starts if start == STANDARD_INPUT or (start and is_there(Path(start))))
    named = (start for start in starts if Path(start).suffix in SUFFIXES)
    path = next(there, None) or next(named, None)
    return SpecName(text) if path is None else SpecName(path, text[len(path) + 1 :])


def name_of_point(path: str, pairs: Iterable[tuple[str, object]]) -> str:
    """`file.yaml#s=3,how=skip`, as `parse_spec_name` reads it; of standard input as a command line takes it."""
    file = STDIN_FILE if path == STANDARD_INPUT else path
    return f"{file}{SIGN}{','.join(f'{name}={value}' for name, value in pairs)}"


def read_point(name: SpecName, variables: Sequence[Variable]) -> Pairs:
    """The text of a value for each variable of a sweep, in their order.

    Raises:
        InputError: there is no sweep, or the name lacks a variable, has one that is not there, or a value that is not:
            all of them, a line each. What a selector stands for is left to the model.
    """
    given = shlex.quote(f"{name.path}{SIGN}{name.point}")
    if not variables:
        fact = f"{name.file} is no sweep (it has no vary), and has no points"
        raise InputError(f"{given}: {fact}; leave out what is behind the {SIGN}")
    example = f"write it like {shlex.quote(_example(name.path, variables))}"
    if not name.point:
        raise InputError(f"{given}: there is no point behind the {SIGN}; {example}")
    names = [variable.name for variable in variables]
    pairs = _split(name.point, variables)
    lines = [f'"{shorten(text)}" gives no value to a variable; {example}' for found, text in pairs if found is None]
    known = [(found, text) for found, text in pairs if found is not None]
    lines += [unknown_text("variable", found, names) for found, _ in known if found not in names]
    values = dict(reversed(known))
    missing = [name for name in names if name not in values]
    if missing:
        lines.append(f"it gives no value to {' and '.join(missing)}; {example}")
    for variable in (variable for variable in variables if variable.name in values):
        count = [found for found, _ in known].count(variable.name)
        if count > 1:
            lines.append(f"it gives the variable {variable.name} {count} values; write one")
        elif variable.selector is None and not _matching(values[variable.name], variable.told):
            lines.append(unknown_value(variable.name, values[variable.name], variable.told))
    if lines:
        raise InputError("\n".join(f"{given}: {line}" for line in lines))
    return tuple((variable.name, values[variable.name]) for variable in variables)


def _split(text: str, variables: Sequence[Variable]) -> list[tuple[str | None, str]]:
    """The parts of the name of a point: a variable, None where it names none, and a text.

    A comma is part of a value where no variable follows it, or where the sweep has that value.
    """
    known = "|".join(re.escape(variable.name) for variable in variables)
    values = {f"{variable.name}={value}" for variable in variables for value in variable.told}
    found: list[tuple[str | None, str]] = []
    for part in re.split(rf",(?=(?:{known})=)", text):
        for piece in [part] if part in values else re.split(r",(?=\w+=)", part):
            name, equals, value = piece.partition("=")
            found.append((name, value) if equals else (None, piece))
    return found


def pick_value(name: str, text: str, values: Sequence[Binding]) -> int:
    """The number of the value that a text says, among those of a variable.

    Raises:
        InputError: there is none, or there are several.
    """
    found = _matching(text, values)
    if not found:
        raise InputError(unknown_value(name, text, values))
    if len(found) > 1:
        raise InputError(f"the variable {name} has the value {text} {len(found)} times; write each value once")
    return found[0]


def _matching(text: str, values: Sequence[Binding]) -> list[int]:
    """The numbers of the values that a text says: literally, or else as the same number."""
    same = [number for number, value in enumerate(values) if str(value) == text]
    return same or [number for number, value in enumerate(values) if _is_number(text, value)]


def _is_number(text: str, value: Binding) -> bool:
    try:
        return not isinstance(value, str) and float(text) == value
    except ValueError:
        return False


def unknown_value(name: str, text: str, values: Sequence[Binding]) -> str:
    """`the variable s has no value "33"; there are 0, 1, 2; did you mean "3"?`, of many the first and the last."""
    texts = [str(value) for value in values]
    best = nearest(text, texts)
    advice = f'; did you mean "{best}"?' if best else ""
    return f'the variable {name} has no value "{shorten(text)}"; there are {list_some(texts)}{advice}'


def list_some(texts: Sequence[str]) -> str:
    """All of a few texts, or the first of many and the last."""
    return ", ".join(texts if len(texts) <= SHOWN else [*texts[: SHOWN - 1], "...", texts[-1]])


def _example(path: str, variables: Sequence[Variable]) -> str:
    return name_of_point(path, [(variable.name, (*variable.told, 0)[0]) for variable in variables])
