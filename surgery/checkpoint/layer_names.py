"""Data of a config or a file's header that names layers -> the same under the layers' new numbers.

Quantisers and trainers write names of modules into JSON (`{"layers": {"transformer_blocks.3.attn.to_q": {...}}}`,
`"modules_to_not_convert": ["transformer_blocks.0"]`). A key or a list's member follows its layer to every place where
it runs, and goes with a layer that is gone; what can't be told is refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from surgery.anatomy.authors_layout import SPELLINGS
from surgery.checkpoint.adapter_names import DOTTED_PREFIXES, shorten
from surgery.errors import RefusedError


class LayerNames:
    """Names of layers under a plan: `orders` are the layers of each stack in their new order."""

    def __init__(self, orders: Mapping[str, Sequence[int]]) -> None:
        self.orders = orders

    @cached_property
    def _stacks(self) -> dict[str, str]:
        """Every spelling of a stack, the authors' too, and diffusers' name of it."""
        authors = {spelling: stack for spelling, stack in SPELLINGS.items() if stack in self.orders}
        return authors | {stack: stack for stack in self.orders}

    @cached_property
    def _name(self) -> re.Pattern[str]:
        prefixes, stacks = ("|".join(map(re.escape, texts)) for texts in (DOTTED_PREFIXES, self._stacks))
        return re.compile(rf"(?P<before>{prefixes})(?P<stack>{stacks})\.(?P<index>\d{{1,9}})(?P<behind>(\..*)?)", re.S)

    @cached_property
    def _mention(self) -> re.Pattern[str]:
        """A layer within a longer text, or a choice of layers as patterns write it: `(1|2)`, `[3-5]`."""
        stacks = "|".join(map(re.escape, self._stacks))
        joined = "|".join(re.escape(stack.replace(".", "_")) for stack in self._stacks)
        prefixes = "|".join(map(re.escape, DOTTED_PREFIXES))
        choice = r"(?P<choice>[(\[](?!0-9\][+*])[^)\]]*\d[^)\]]*[)\]]|\d{1,9}-\d)"
        dotted = rf"(?<![\w.])(?:{prefixes})(?P<stack>{stacks})\\?\.(?:{choice}|(?P<index>\d{{1,9}})(?!\d))"
        return re.compile(rf"{dotted}|(?:^|_|\b)(?P<joined>{joined})_(?P<number>\d{{1,9}})(?=_)")

    def follow(self, data: Any) -> Any:
        """JSON data under the new numbers.

        Raises:
            RefusedError: it names a layer in a way that can't follow it.
        """
        if not self._stacks:
            return data
        match data:
            case dict():
                self._refuse_numbers(data)
                return {name: self.follow(value) for key, value in data.items() for name in self._places(key)}
            case list():
                return [kept for item in data for kept in self._members(item)]
            case str():
                places = self._places(data)
                if len(places) != 1:
                    raise self._refusal(data, data)
                return places[0]
            case _:
                return data

    def _refuse_numbers(self, data: Mapping[str, Any]) -> None:
        """Refuse an object of a stack's name whose keys are numbers of its layers, where these have moved."""
        for stack in self._stacks.keys() & data.keys():
            numbers = [key for key in data[stack] if key.isdigit()] if isinstance(data[stack], dict) else []
            if numbers and not self._stays(stack, None):
                raise self._refusal(f"{stack}: {numbers[0]}", f"{stack}: {numbers[0]}")

    def _members(self, item: Any) -> Iterator[Any]:
        yield from self._places(item) if isinstance(item, str) else (self.follow(item),)

    def _places(self, text: str) -> list[str]:
        """A name of something within a layer, once for each place of the layer; any other text as it is."""
        named = self._name.fullmatch(text)
        if named is not None:
            before, stack, behind = named["before"], named["stack"], named["behind"]
            return [f"{before}{stack}.{place}{behind}" for place in self._positions(stack, int(named["index"]))]
        for mention in self._mention.finditer(text):
            stack = mention["stack"] or self._unjoined(mention["joined"])
            if not self._stays(stack, mention["index"] or mention["number"]):
                raise self._refusal(text, mention[0])
        return [text]

    def _unjoined(self, joined: str) -> str:
        return next(stack for stack in self._stacks if stack.replace(".", "_") == joined)

    def _stays(self, stack: str, index: str | None) -> bool:
        """Whether a layer runs where it did; without a number, whether all before any that is gone or moved do."""
        if index is not None:
            return self._positions(stack, int(index)) == [int(index)]
        order = self.orders[self._stacks[stack]]
        return list(order) == list(range(len(order)))

    def _positions(self, stack: str, index: int) -> list[int]:
        return [place for place, layer in enumerate(self.orders[self._stacks[stack]]) if layer == index]

    def _refusal(self, text: str, layer: str) -> RefusedError:
        within = "" if text == layer else f" within {shorten(text)!r}"
        return RefusedError(f"{shorten(layer)}{within} can't follow its layer to where it runs now")
