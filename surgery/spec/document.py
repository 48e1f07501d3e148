"""YAML text -> a tree of values with places. Safe, bounded, and strict where YAML is sly."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from surgery.spec.limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES
from surgery.spec.nearest import shorten
from surgery.spec.places import Faults, Place
from surgery.spec.yaml_faults import list_yaml_faults, place_of_mark

TAG_PREFIX = "tag:yaml.org,2002:"
CLOCK = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+")
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Scalar:
    """A single value. `text` is what stands in the file, unquoted; `column_shift` leads to its first character.

    A text that `is_made` of another one, which stands in the file, has one place for all of its characters.
    """

    value: str | int | float | bool | None
    text: str
    place: Place
    column_shift: int = 0
    is_made: bool = False

    def place_of(self, offset: int) -> Place:
        """The place of the character at `offset` of the text."""
        return self.place if self.is_made else self.place.after(self.column_shift + offset)


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
        faults.add(start, f"the file has over {MAX_BYTES:,} bytes, which no spec has; is it the right file?")
        return None
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            *above, last = error.object[: error.start].split(b"\n")
            place = Place(len(above) + 1, len(last.decode()) + 1)
            faults.add(place, f"byte {error.start} is not UTF-8; write the spec as UTF-8 text")
            return None
    try:
        node = yaml.compose(text, Loader=_BoundedLoader)
    except _TooLargeError as error:
        faults.add(error.place, error.fact)
        return None
    except yaml.MarkedYAMLError as error:
        for place, fact in list_yaml_faults(text, error, _fault_in):
            faults.add(place, fact)
        return None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        faults.add(Place(line, 1), f"the character {chr(error.character)!r} is not allowed in YAML; remove it")
        return None
    except (ValueError, OverflowError, IndexError) as error:
        faults.add(start, f"this is not YAML that can be read ({shorten(str(error))}); look for a wrong escape")
        return None
    if node is None:
        faults.add(start, "the file is empty; a spec begins with `surgery: v1`")
        return None
    try:
        return _Builder(faults).build(node, 0)
    except _TooLargeError as error:
        faults.add(error.place, error.fact)
        return None


def _fault_in(text: str) -> yaml.MarkedYAMLError | None:
    """The first fault of a text as YAML, None where it has none that has a place."""
    try:
        yaml.compose(text, Loader=_BoundedLoader)
    except yaml.MarkedYAMLError as error:
        return error
    except (yaml.YAMLError, _TooLargeError, ValueError, OverflowError, IndexError):
        return None
    return None


class _TooLargeError(Exception):
    """The document is larger than a spec can be: where, and the text of the fault."""

    def __init__(self, place: Place, fact: str) -> None:
        super().__init__(fact)
        self.place = place
        self.fact = fact


class _BoundedLoader(yaml.SafeLoader):
    """Stops at what is larger than a spec can be: PyYAML's time grows with the square of the depth."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.num_nodes = 0
        self.depth = 0

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise _too_deep(self.get_mark())
        super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.num_nodes += 1
        self.depth += 1
        mark: yaml.Mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.num_nodes > MAX_VALUES:
            raise _TooLargeError(place_of_mark(mark), f"the spec has over {MAX_VALUES:,} values; write a smaller one")
        if self.depth > MAX_DEPTH:
            raise _too_deep(mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _too_deep(mark: yaml.Mark | None) -> _TooLargeError:
    return _TooLargeError(place_of_mark(mark), f"the spec is nested too deeply; write at most {MAX_DEPTH} levels")


class _Builder:
    """Turns YAML nodes into values and finds what YAML lets pass."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.num_values = 0

    def build(self, node: yaml.Node, depth: int) -> Value:
        self.num_values += 1
        place = place_of_mark(node.start_mark)
        if self.num_values > MAX_VALUES or depth > MAX_DEPTH:
            what = f"over {MAX_VALUES:,} values" if self.num_values > MAX_VALUES else f"over {MAX_DEPTH} levels"
            raise _TooLargeError(place, f"the spec has {what} once its aliases are written out; write a smaller one")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, place)
        if node.tag not in (f"{TAG_PREFIX}seq", f"{TAG_PREFIX}map"):
            self.refuse_tag(node.tag, place)
        if isinstance(node, yaml.SequenceNode):
            return Items(tuple(self.build(child, depth + 1) for child in node.value), place)
        return self.entries(node, place, depth)

    def entries(self, node: yaml.Node, place: Place, depth: int) -> Entries:
        found: dict[str, tuple[Scalar, Value]] = {}
        for key_node, value_node in node.value:
            key_place = place_of_mark(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.add_final(key_place, "a key is a list or a mapping; write a plain word before the colon")
                self.faults.settle(place)
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
            found[key.text] = (key, self.build(value_node, depth + 1))
        return Entries(tuple(found.values()), place)

    def scalar(self, node: yaml.ScalarNode, place: Place) -> Scalar:
        """The value of a scalar; nothing where it has a fault, whose place is then settled."""
        text: str = node.value
        tag = node.tag.removeprefix(TAG_PREFIX)
        shift = 1 if node.style in ("'", '"') else 0
        if tag == "int" and CLOCK.fullmatch(text):
            self.faults.add_final(
                place,
                f"YAML reads {shorten(text)} as a number in base 60; quote it where a range stands alone: "
                f'"{shorten(text)}", or write the stack: transformer_blocks[{shorten(text)}]',
            )
            return Scalar(None, text, place, shift)
        if SURROGATE.search(text):
            self.faults.add_final(place, f'"{shorten(text)}" holds half a character; write the whole character')
            return Scalar(None, "", place, shift)
        if tag == "str" and node.style is None:
            return Scalar(_number_or_text(text), text, place, shift)
        return Scalar(self.convert(tag, text, place), text, place, shift)

    def refuse_tag(self, tag: str, place: Place) -> None:
        self.faults.add_final(
            place, f"the YAML tag {shorten(tag.removeprefix(TAG_PREFIX))} is not allowed in a spec; remove it"
        )

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
                    return text
        except ValueError:
            return text
        self.refuse_tag(tag, place)
        return None


def _number_or_text(text: str) -> str | float:
    """YAML 1.1 reads 1e-3 as text; here it is a number."""
    if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+", text):
        return float(text)
    return text
