"""What YAML can't read in a spec -> messages with places: all of them, as far as the text can be read on.

PyYAML stops at the first fault. What belongs to its line (the line, and the deeper ones below) is then left out, and
the rest is read again; what comes to light before the place of the last fault only follows from what was left out.
"""

import math
import re
from collections.abc import Callable, Iterator

import yaml

from surgery.spec.nearest import shorten
from surgery.spec.places import Place

MAX_FAULTS = 20  # that are looked for
KEY_OF_LINE = re.compile(r"(?P<indent> *(?:- +)?)(?P<key>[A-Za-z_]\w*):(?:\s|$)")
STAR = re.compile(r"\*[^\s,}\[\]]*(\[[^\]]*\][^\s,}\]]*)?")
BARE_SELECTOR = re.compile(r"(?:^|[:\s,{\[])([A-Za-z_][\w./]*\[[^\]]*\][\w.*]*)")


def list_yaml_faults(
    text: str, first: yaml.MarkedYAMLError, find: Callable[[str], yaml.MarkedYAMLError | None]
) -> Iterator[tuple[Place, str]]:
    """The place and the words of every fault; `find` gives the first one of a text, None without."""
    lines = text.splitlines()
    error: yaml.MarkedYAMLError | None = first
    reached = 0
    for _ in range(MAX_FAULTS):
        if error is None:
            return
        place, fact = _yaml_advice(error, lines)
        if place.line <= reached:
            return
        if reached and "undefined alias" in (error.problem or ""):  # its anchor may be in what was left out
            return
        yield place, fact
        if _is_left_open(error):
            return
        reached = _leave_out(lines, place.line)
        error = find("\n".join(lines))


def _is_left_open(error: yaml.MarkedYAMLError) -> bool:
    """Whether a quote or a bracket that opened on an earlier line is the fault: then all below is read wrongly."""
    opened, met, context = error.context_mark, error.problem_mark, error.context or ""
    is_open = "flow" in context or "quoted scalar" in context
    return is_open and opened is not None and met is not None and opened.line < met.line


def place_of_mark(mark: yaml.Mark | None) -> Place:
    """Where PyYAML's mark is."""
    return Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)


def _leave_out(lines: list[str], number: int) -> int:
    """Empty a line, and those below it that are indented deeper; the number of the last one."""
    depth = _depth(lines[number - 1]) if number <= len(lines) else 0.0
    last = number
    for below in range(number + 1, len(lines) + 1):
        if lines[below - 1].strip() and _depth(lines[below - 1]) <= depth:
            break
        last = below
    for line in range(number, min(last, len(lines)) + 1):
        lines[line - 1] = ""
    return last


def _depth(line: str) -> float:
    """The number of spaces that a line is indented by; one with tabs stands for itself alone."""
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    return math.inf if "\t" in indent else len(indent)


def _yaml_advice(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[Place, str]:
    """Where a YAML error is, and what it means in a spec."""
    problem, context = (error.problem or "it can't be parsed").strip(), error.context or ""
    mark = error.problem_mark or error.context_mark
    place = place_of_mark(mark)
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "alias" in problem or "an alias" in context:
        star = next((found for found in STAR.finditer(line) if found.end() >= place.column - 1), None)
        selector = star.group(0) if star else "*[0]"
        return (
            Place(place.line, star.start() + 1) if star else place,
            f'a leading * is an alias in YAML; to mean every name, quote the selector: "{shorten(selector)}"',
        )
    bare = next((found for found in BARE_SELECTOR.finditer(line) if found.end() >= place.column), None)
    if bare is not None and ("flow" in context or "flow" in problem) and not _is_quoted(line, bare.start(1)):
        name = shorten(bare.group(1))
        return (
            Place(place.line, bare.start(1) + 1),
            f'YAML can\'t read {name} within braces or brackets; quote the selector: "{name}"',
        )
    if "quoted scalar" in context and "end of stream" in problem:
        return place_of_mark(error.context_mark), "the quote that opens here is not closed; close it on the same line"
    if "\\t" in problem or "tab" in problem.split():
        return place, "a tab is used for indentation, which YAML does not allow; indent with spaces"
    if "mapping values are not allowed" in problem or "'<block mapping start>'" in problem:
        indentation = _indentation_advice(lines, place.line)
        if indentation is not None:
            return indentation
    if "expected a single document" in problem or "expected a single document" in context:
        return place, "there is a second document after `---`; a file holds one spec"
    return place, f"this is not YAML: {shorten(problem, 100)}; check indentation, colons and quotes here"


def _indentation_advice(lines: list[str], number: int) -> tuple[Place, str] | None:
    """What to say of a line `key: value` that is indented unlike the one above; None where that is right."""
    above = next((n for n in range(number - 1, 0, -1) if lines[n - 1].split("#")[0].strip()), None)
    if above is None:
        return None
    key, own = KEY_OF_LINE.match(lines[above - 1]), KEY_OF_LINE.match(lines[number - 1])
    if key is None or own is None or key.end("indent") == own.end("indent"):
        return None
    fact = f"{shorten(own['key'])} begins at column {own.end('indent') + 1}"
    wanted = f"{shorten(key['key'])} above it at column {key.end('indent') + 1}"
    return Place(number, own.end("indent") + 1), f"{fact}, and {wanted}; what belongs together begins at one column"


def _is_quoted(line: str, position: int) -> bool:
    return line[:position].count('"') % 2 == 1 or line[:position].count("'") % 2 == 1
