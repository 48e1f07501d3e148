"""Schedules as canonical text, and back. The grammar stands in `schedule.py`."""

import re
from collections.abc import Iterator
from typing import assert_never

from surgery.plan.schedule import Group, Item, Layer, Repetition
from surgery.spec.operations import Combine

TOKEN = re.compile(r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?P<mark>[()|:*+x-]))")


def items_to_text(items: tuple[Item, ...]) -> str:
    """`0:4 (4|5|6|7)x3 8:19`: runs of ascending layers are half open, an empty schedule is `-`."""
    return " ".join(_texts(items)) or "-"


def _texts(items: tuple[Item, ...]) -> Iterator[str]:
    position = 0
    while position < len(items):
        length = _run_length(items, position)
        item = items[position]
        if length > 1 and isinstance(item, Layer):
            yield f"{item.index}:{item.index + length}"
        else:
            length = 1
            yield _item_text(item)
        position += length


def _run_length(items: tuple[Item, ...], start: int) -> int:
    first = items[start]
    length = 0
    while start + length < len(items):
        item = items[start + length]
        if not (isinstance(first, Layer) and item == Layer(first.index + length)):
            break
        length += 1
    return length


def _item_text(item: Item) -> str:
    match item:
        case Layer(index, scale):
            return str(index) if scale == 1.0 else f"{index}*{_number_text(scale)}"
        case Group(layers, combine, loops):
            members = "|".join(_item_text(layer) for layer in layers)
            return f"({members})" + ("+" if combine == "sum" else "") + (f"x{loops}" if loops > 1 else "")
        case Repetition(inner, times):
            return f"({items_to_text(inner)})x{times}"
        case _:
            assert_never(item)


def _number_text(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def items_from_text(text: str) -> tuple[Item, ...]:
    """The items of a canonical text.

    Raises:
        ValueError: the text is malformed; the message says where.
    """
    if text.strip() == "-":
        return ()
    reader = _Reader(text)
    items = reader.items()
    if reader.peek():
        raise ValueError(f"unexpected {reader.peek()!r} in the schedule {text!r}")
    return items


class _Reader:
    """A recursive-descent reader of one schedule."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        position = 0
        while position < len(text.rstrip()):
            match = TOKEN.match(text, position)
            if match is None:
                raise ValueError(f"unexpected {text[position:].strip()[:1]!r} in the schedule {text!r}")
            self.tokens.append(match.group("number") or match.group("mark"))
            position = match.end()
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise ValueError(f"expected {expected or 'more'} but found {token or 'the end'} in {self.text!r}")
        self.position += 1
        return token

    def integer(self) -> int:
        token = self.take()
        if not token.isdigit():
            raise ValueError(f"expected a layer number but found {token!r} in {self.text!r}")
        return int(token)

    def items(self) -> tuple[Item, ...]:
        found: list[Item] = []
        while self.peek() and self.peek() not in (")", "|"):
            found.extend(self.bracket() if self.peek() == "(" else self.layers())
        return tuple(found)

    def layers(self) -> list[Item]:
        first = self.integer()
        if self.peek() == ":":
            self.take()
            return [Layer(index) for index in range(first, self.integer())]
        if self.peek() == "*":
            self.take()
            sign = -1.0 if self.peek() == "-" and self.take() else 1.0
            return [Layer(first, sign * float(self.take()))]
        return [Layer(first)]

    def bracket(self) -> list[Item]:
        self.take("(")
        items = self.items()
        if self.peek() != "|":
            self.take(")")
            self.take("x")
            return [Repetition(items, self.integer())]
        members = list(items)
        while self.peek() == "|":
            self.take()
            members.extend(self.items())
        self.take(")")
        combine: Combine = "mean"
        if self.peek() == "+":
            self.take()
            combine = "sum"
        loops = 1
        if self.peek() == "x":
            self.take()
            loops = self.integer()
        return [Group(tuple(_as_layer(member, self.text) for member in members), combine, loops)]


def _as_layer(item: Item, text: str) -> Layer:
    if not isinstance(item, Layer):
        raise ValueError(f"a group holds layers only, in {text!r}")
    return item
