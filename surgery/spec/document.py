"""YAML text -> a tree of values with places. Safe, bounded, and strict where YAML is sly."""

import re
from dataclasses import dataclass

import yaml

from surgery.spec.nearest import shorten
from surgery.spec.places import Faults, Place

MAX_BYTES = 1_000_000
MAX_VALUES = 20_000  # after aliases are expanded
MAX_DEPTH = 40
TAG_PREFIX = "tag:yaml.org,2002:"
CLOCK = re.compile(r"^[-+]?\d+(:[0-5]?\d)+$")


@dataclass(frozen=True)
class Scalar:
    """A single value. `text` is what stands in the file, unquoted; `column_shift` leads to its first character."""

    value: str | int | float | bool | None
    text: str
    place: Place
    column_shift: int = 0

    def place_of(self, offset: int) -> Place:
        """The place of the character at `offset` of the text."""
        return self.place.after(self.column_shift + offset)


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple["Value", ...]
    place: Place


@dataclass(frozen=True)
class Entries:
    """A mapping with unique string keys; the keys keep their places."""

    entries: tuple[tuple[Scalar, "Value"], ...]
    place: Place

    def get(self, key: str) -> "Value | None":
        """The value of a key, or None."""
        return next((value for name, value in self.entries if name.text == key), None)

    def key_place(self, key: str) -> Place:
        """Where a key stands."""
        return next((name.place for name, _ in self.entries if name.text == key), self.place)


Value = Scalar | Items | Entries


def read_document(text: str | bytes, faults: Faults) -> Value | None:
    """The one document of a YAML text, or None (and faults) where it is none."""
    start = Place(1, 1)
    if len(text) > MAX_BYTES:
        faults.add(start, f"the file has {len(text):,} bytes; a spec has at most {MAX_BYTES:,}; is it the right file?")
        return None
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = text[: error.start].count(b"\n") + 1
            faults.add(Place(line, 1), f"byte {error.start} is not UTF-8; write the spec as UTF-8 text")
            return None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        faults.add(_mark_place(error.problem_mark or error.context_mark), _yaml_advice(error, text))
        return None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        faults.add(Place(line, 1), f"the character {chr(error.character)!r} is not allowed in YAML; remove it")
        return None
    except (RecursionError, ValueError, IndexError) as error:
        faults.add(start, f"this is not YAML that can be read ({type(error).__name__}); is it nested too deeply?")
        return None
    if node is None:
        faults.add(start, "the file is empty; a spec begins with `surgery: v1`")
        return None
    return _Builder(faults).build(node, 0)


class _Builder:
    """Turns YAML nodes into values and finds what YAML lets pass."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.num_values = 0

    def build(self, node: yaml.Node, depth: int) -> Value | None:
        self.num_values += 1
        place = _mark_place(node.start_mark)
        if self.num_values > MAX_VALUES or depth > MAX_DEPTH:
            what = f"more than {MAX_VALUES:,} values" if self.num_values > MAX_VALUES else f"over {MAX_DEPTH} levels"
            if self.num_values <= MAX_VALUES + 1:
                self.faults.add(place, f"the spec has {what} once its aliases are written out; write a smaller one")
            self.num_values = max(self.num_values, MAX_VALUES + 2)
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, place)
        if isinstance(node, yaml.SequenceNode):
            items = [self.build(child, depth + 1) for child in node.value]
            return Items(tuple(item for item in items if item is not None), place)
        return self.entries(node, place, depth)

    def entries(self, node: yaml.Node, place: Place, depth: int) -> Entries:
        found: dict[str, tuple[Scalar, Value]] = {}
        for key_node, value_node in node.value:
            key_place = _mark_place(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.add(key_place, "a key is a list or a mapping; write a plain word before the colon")
                continue
            key = Scalar(key_node.value, key_node.value, key_place)
            if key.text in found:
                first = found[key.text][0].place
                self.faults.add(
                    key_place,
                    f'the key "{shorten(key.text)}" stands here a second time (first at line {first.line}); '
                    "keep one of them",
                )
                continue
            value = self.build(value_node, depth + 1)
            if value is not None:
                found[key.text] = (key, value)
        return Entries(tuple(found.values()), place)

    def scalar(self, node: yaml.ScalarNode, place: Place) -> Scalar | None:
        text: str = node.value
        tag = node.tag.removeprefix(TAG_PREFIX)
        shift = 1 if node.style in ("'", '"') else 0
        if tag == "int" and CLOCK.match(text):
            self.faults.add(place, f'YAML reads {text} as a number in base 60; quote it: "{text}"')
            return None
        return Scalar(self.convert(tag, text, place), text, place, shift)

    def convert(self, tag: str, text: str, place: Place) -> str | int | float | bool | None:
        try:
            match tag:
                case "int":
                    return int(text.replace("_", ""), 0)
                case "float":
                    return float(text.replace("_", ""))
                case "bool":
                    return text.lower() in ("yes", "true", "on", "y")
                case "null":
                    return None
                case "str" | "timestamp" | "value" | "merge":
                    return _number_or_text(text)
        except ValueError:
            return text
        self.faults.add(place, f"the YAML tag {shorten(tag)} is not allowed in a spec; remove it")
        return text


def _number_or_text(text: str) -> str | float:
    """YAML 1.1 reads 1e-3 as text; here it is a number."""
    if re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", text):
        return float(text)
    return text


def _mark_place(mark: yaml.Mark | None) -> Place:
    return Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)


def _yaml_advice(error: yaml.MarkedYAMLError, text: str) -> str:
    """What a YAML error means in a spec."""
    problem = (error.problem or "it can't be parsed").strip()
    mark = error.problem_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "alias" in problem or "scanning an alias" in (error.context or ""):
        words = re.search(r"\*[^\s,}\]]*(\[[^\]]*\][^\s,}\]]*)?", line)
        selector = words.group(0) if words else "*[0]"
        return f"a leading * is an alias in YAML; to mean every name, quote the selector: \"{shorten(selector)}\""
    bracket = re.search(r"[:\s,{\[]([A-Za-z_][\w./]*\[[^\]]*\][\w.*]*)", line)
    in_braces = bracket is not None and "{" in line[: bracket.start() + 1]
    if bracket is not None and in_braces and ("','" in problem or "flow" in (error.context or "")):
        return (
            f'YAML can\'t read {shorten(bracket.group(1))} within braces; quote the selector: "{bracket.group(1)}"'
        )
    if "\\t" in problem or "tab" in problem:
        return "a tab is used for indentation, which YAML does not allow; indent with spaces"
    if "expected a single document" in problem or "expected a single document" in (error.context or ""):
        return "there is a second document after `---`; a file holds one spec"
    return f"this is not YAML: {shorten(problem, 100)}; check indentation, colons and quotes here"
