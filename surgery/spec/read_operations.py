"""The `operations` section -> operations. Every fault is collected; what has one is left out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from surgery.spec.document import Entries, Items, Scalar, Value
from surgery.spec.fields import check_keys, describe, read_choice, read_integer, read_number, read_text
from surgery.spec.grammar import BESIDE, OPERATIONS, ORDER_GROUP, SYNONYMS
from surgery.spec.limits import MAX_INDEX, MAX_PARTS, MAX_TIMES
from surgery.spec.nearest import shorten, unknown_text
from surgery.spec.operations import (
    COMBINE_KINDS,
    REPLACEMENT_KINDS,
    AnyOperation,
    Combine,
    Order,
    OrderGroup,
    OrderRange,
    Parallel,
    Repeat,
    Replace,
    Reverse,
    Scale,
    Selection,
    Shuffle,
    Skip,
)
from surgery.spec.places import Faults, Place
from surgery.spec.read_when import read_when
from surgery.spec.selector import BOTH, MODELS, NAME, Groups, Range, Selector, count_parts, read_selector


class OperationReader:
    """Reads operations with the groups of one spec at hand."""

    def __init__(self, groups: Groups | None, faults: Faults) -> None:
        self.groups = groups
        self.faults = faults
        self.num_parts = 0  # of the selectors in the list that is being read
        self.num_read = 0  # operations, in all lists so far; an empty list counts as one
        self.readers: dict[str, Callable[[Value, Place], AnyOperation | None]] = {  # one for each of OPERATIONS
            "skip": self.skip,
            "repeat": self.repeat,
            "reverse": self.reverse,
            "shuffle": self.shuffle,
            "order": self.order,
            "parallel": self.parallel,
            "scale": self.scale,
            "replace": self.replace,
        }

    def read_all(self, value: Value) -> tuple[AnyOperation, ...]:
        """A list of operations."""
        if not isinstance(value, Items):
            self.faults.add(
                value.place, f"operations is {describe(value)}; write a list, like `- skip: transformer_blocks[3]`"
            )
            return ()
        self.num_parts = 0
        self.num_read += len(value.items) or 1
        found = [self.read(item) for item in value.items]
        return tuple(operation for operation in found if operation is not None)

    def read(self, value: Value) -> AnyOperation | None:
        """One entry of the list: one operation, and `expect` and `when` beside it."""
        names = list(self.readers)
        if not isinstance(value, Entries) or not value.entries:
            self.faults.add(
                value.place, f"an operation is {describe(value)}; write one of {', '.join(names)} with a colon after it"
            )
            return None
        given = value = self.indented(value)
        value = check_keys(value, [*names, *BESIDE], "an operation", self.faults, synonyms=SYNONYMS)
        present = [(key, item) for key, item in value.entries if key.text in self.readers]
        if len(present) != 1:
            if present:
                second = present[1][0]
                self.faults.add(
                    second.place, f"{present[0][0].text} and {second.text} stand in one entry; put a dash before each"
                )
            elif all(key.text in BESIDE for key, _ in given.entries):
                self.faults.add(value.place, f"the entry has no operation; write one of {', '.join(names)}")
            return None
        key, item = present[0]
        operation = self.readers[key.text](item, key.place)
        expect, when = value.get("expect"), value.get("when")
        number = None if expect is None else read_integer(expect, "expect", self.faults, minimum=1)
        window = None if when is None else read_when(when, self.faults)
        if operation is None:
            return None
        return replace(operation, expect=number, when=window)

    def indented(self, value: Entries) -> Entries:
        """The entry; where an operation's fields stand beside its name, a fault, and as if they stood under it."""
        empty = [key for key, item in value.entries if key.text in self.readers and _is_empty(item)]
        fields = OPERATIONS[empty[0].text].fields if len(empty) == 1 else {}
        inside = tuple((key, item) for key, item in value.entries if key.text in fields)
        if not inside:
            return value
        name = empty[0].text
        shown = " and ".join(key.text for key, _ in inside)
        verb, them = ("stands", "it") if len(inside) == 1 else ("stand", "them")
        self.faults.add(inside[0][0].place, f"{shown} {verb} beside {name}; indent {them} further than {name}")
        kept = [entry for entry in value.entries if entry not in inside]
        moved = Entries(inside, inside[0][0].place)
        return Entries(tuple((key, moved if key.text == name else item) for key, item in kept), value.place)

    # Selections.

    def selection(self, value: Value | None, place: Place, *, component: bool = False) -> Selection:
        """One selector or a list of them; empty (and faults) if malformed."""
        example = "transformer_blocks[2:5].attn1" if component else "transformer_blocks[4:15]"
        if value is None:
            what = "component" if component else "layers"
            self.faults.add(place, f"{what} is missing; write {what}: {example}")
            return ()
        if isinstance(value, Items):
            if not value.items:
                self.faults.add(value.place, f"the list of selectors is empty; write one, like {example}")
            return tuple(found for item in value.items for found in self.selection(item, place, component=component))
        if not isinstance(value, Scalar) or not isinstance(value.value, str):
            given = value.text if isinstance(value, Scalar) and value.value is not None else None
            advice = "" if given is None else f'; did you mean "transformer_blocks[{shorten(given)}]"?'
            self.faults.add(value.place, f"a selector is {describe(value)}; write one like {example}{advice}")
            return ()
        selectors = self.within_bound(read_selector(value, self.groups, self.faults), value)
        return tuple(found for found in selectors if self.fits(found, value, component))

    def within_bound(self, selectors: Selection, value: Scalar) -> Selection:
        """The selectors, or none (and a fault, the first time) where a list of operations selects with too many."""
        before, self.num_parts = self.num_parts, self.num_parts + count_parts(selectors)
        if self.num_parts <= MAX_PARTS:
            return selectors
        if before <= MAX_PARTS:
            self.faults.add(
                value.place,
                f"the operations select with over {MAX_PARTS:,} indices and ranges, groups written out; "
                "write ranges, like transformer_blocks[4:15]",
            )
        self.faults.meet_again()
        return ()

    def fits(self, selector: Selector, value: Scalar, component: bool) -> bool:
        """Whether the selector names layers, or components, as the operation needs."""
        if component and selector.component is None:
            self.faults.add(
                value.place, f'"{shorten(value.text)}" names layers; add a component after a dot, like ".attn1"'
            )
            return False
        if not component and selector.component is not None:
            self.faults.add(
                selector.component_place or value.place,
                f'the component "{shorten(selector.component)}" can\'t be used here, where whole layers are meant; '
                "leave it out, or use replace",
            )
            return False
        return True

    def fields(self, value: Value, name: str) -> Entries | None:
        """The mapping of an operation; a selector alone stands for one of its fields, where its form says so."""
        form = OPERATIONS[name]
        if isinstance(value, Entries):
            return check_keys(self.without_beside(value, name), form.fields, name, self.faults)
        if form.bare is not None:
            key = Scalar(form.bare, form.bare, value.place)
            return Entries(((key, value),), value.place)
        self.faults.add(value.place, f"{name} is {describe(value)}; write a mapping with {', '.join(form.fields)}")
        return None

    def without_beside(self, value: Entries, name: str) -> Entries:
        """The fields of an operation; a fault for `expect` and `when` among them."""
        for key, _ in value.entries:
            if key.text in BESIDE:
                self.faults.add(
                    key.place, f"{key.text} stands within {name}; write it beside {name}, on a line of its own"
                )
        return Entries(tuple(entry for entry in value.entries if entry[0].text not in BESIDE), value.place)

    # One method an operation.

    def skip(self, value: Value, place: Place) -> Skip | None:
        entries = self.fields(value, "skip")
        layers = self.selection(entries.get("layers"), place) if entries else ()
        return Skip(layers, place=place) if layers else None

    def reverse(self, value: Value, place: Place) -> Reverse | None:
        entries = self.fields(value, "reverse")
        layers = self.selection(entries.get("layers"), place) if entries else ()
        return Reverse(layers, place=place) if layers else None

    def shuffle(self, value: Value, place: Place) -> Shuffle | None:
        entries = self.fields(value, "shuffle")
        if entries is None:
            return None
        layers = self.selection(entries.get("layers"), place)
        seed = entries.get("seed")
        number = 0 if seed is None else read_integer(seed, "seed", self.faults, minimum=0)
        return Shuffle(layers, number, place=place) if layers and number is not None else None

    def repeat(self, value: Value, place: Place) -> Repeat | None:
        entries = self.fields(value, "repeat")
        if entries is None:
            return None
        layers = self.selection(entries.get("layers"), place)
        times, using = entries.get("times"), entries.get("using")
        if (times is None) == (using is None):
            fact = "neither times nor using is given" if times is None else "times and using exclude each other"
            self.faults.add(
                place if times is None else max(entries.key_place("times"), entries.key_place("using")),
                f"{fact}; write times: 2 to run the layers twice, or using: center to run one layer in all places",
            )
            return None
        number = None if times is None else read_integer(times, "times", self.faults, minimum=1, maximum=MAX_TIMES)
        layer = None if using is None else self.using(using)
        return Repeat(layers, number, layer, place=place) if layers and (number or layer is not None) else None

    def using(self, value: Value) -> int | Literal["center"] | None:
        if isinstance(value, Scalar) and value.text == "center":
            return "center"
        if isinstance(value, Scalar) and isinstance(value.value, int) and not isinstance(value.value, bool):
            return read_integer(value, "using", self.faults, minimum=-MAX_INDEX, maximum=MAX_INDEX)
        self.faults.add(value.place, f"using is {describe(value)}; write center, or the index of a layer")
        return None

    def parallel(self, value: Value, place: Place) -> Parallel | None:
        entries = self.fields(value, "parallel")
        if entries is None:
            return None
        layers = self.selection(entries.get("layers"), place)
        combine, loops = self.combine_and_loops(entries)
        return Parallel(layers, combine, loops, place=place) if layers and combine and loops else None

    def combine_and_loops(self, entries: Entries) -> tuple[Combine | None, int | None]:
        combine, loops = entries.get("combine"), entries.get("loops")
        word = "mean" if combine is None else read_choice(combine, "way to combine", COMBINE_KINDS, self.faults)
        kind: Combine | None = next((known for known in COMBINE_KINDS if known == word), None)
        times = 1 if loops is None else read_integer(loops, "loops", self.faults, minimum=1, maximum=MAX_TIMES)
        return kind, times

    def scale(self, value: Value, place: Place) -> Scale | None:
        entries = self.fields(value, "scale")
        if entries is None:
            return None
        layers = self.selection(entries.get("layers"), place)
        by = entries.get("by")
        if by is None:
            self.faults.add(place, "by is missing; write by: 0.5 to halve the layers' residual updates")
            return None
        factor = read_number(by, "by", self.faults)
        return Scale(layers, factor, place=place) if layers and factor is not None else None

    def replace(self, value: Value, place: Place) -> Replace | None:
        entries = self.fields(value, "replace")
        if entries is None:
            return None
        components = self.selection(entries.get("component"), place, component=True)
        kind = entries.get("with")
        if kind is None:
            self.faults.add(place, f"with is missing; write with: and one of {', '.join(REPLACEMENT_KINDS)}")
            return None
        word = read_choice(kind, "replacement", REPLACEMENT_KINDS, self.faults)
        return Replace(components, word, place=place) if components and word else None

    def order(self, value: Value, place: Place) -> Order | None:
        entries = self.fields(value, "order")
        if entries is None:
            return None
        stack, items = entries.get("stack"), entries.get("as")
        if stack is None or items is None:
            missing = "stack" if stack is None else "as"
            self.faults.add(place, f'{missing} is missing; write {{stack: transformer_blocks, as: [0, 2, "3:9"]}}')
            return None
        name = read_text(stack, "stack", self.faults)
        if not isinstance(items, Items) or not items.items:
            fact = "an empty list" if isinstance(items, Items) else describe(items)
            self.faults.add(items.place, f'as is {fact}; write a list of layers, like [0, 2, "3:9"]')
            return None
        found = [self.order_item(item) for item in items.items]
        if name is None or None in found:
            return None
        model, slash, bare = name.partition("/")
        if slash and model not in (*MODELS, BOTH):
            self.faults.add(stack.place, unknown_text("model part", model, MODELS))
            return None
        written = (bare if slash else name).strip()
        if NAME.fullmatch(written) is None:
            advice = "write its name alone, like transformer_blocks"
            self.faults.add(stack.place, f'"{shorten(name)}" is no name of a stack; {advice}')
            return None
        kept = tuple(item for item in found if item is not None)
        return Order(bare if slash else name, stack.place, kept, model if slash else None, place=place)

    def order_item(self, value: Value) -> OrderGroup | OrderRange | None:
        if isinstance(value, Entries):
            return self.order_group(value)
        if isinstance(value, Scalar) and isinstance(value.value, int) and not isinstance(value.value, bool):
            stop = None if value.value == -1 else value.value + 1
            return OrderRange(value.text, value.value, stop, value.place)
        if isinstance(value, Scalar) and isinstance(value.value, str) and ":" in value.text:
            subscript = replace(value, value=None, text=f"x[{value.text}]", column_shift=value.column_shift - 2)
            parsed = read_selector(subscript, {}, self.faults)
            if not parsed:
                return None
            part = parsed[0].parts[0]
            if len(parsed[0].parts) == 1 and isinstance(part, Range) and part.step is None:
                return OrderRange(value.text, part.start, part.stop, value.place)
        self.faults.add(
            value.place, f'an item of the order is {describe(value)}; write a layer, "5:9", or {{parallel: [6, 7]}}'
        )
        return None

    def order_group(self, value: Entries) -> OrderGroup | None:
        value = check_keys(value, ORDER_GROUP, "a group of the order", self.faults)
        members = value.get("parallel")
        if members is None or not isinstance(members, Items) or not members.items:
            self.faults.add(
                value.place, "a group of the order has no list of layers; write {parallel: [6, 7], loops: 2}"
            )
            return None
        layers = [read_integer(item, "a layer", self.faults, minimum=-10_000) for item in members.items]
        combine, loops = self.combine_and_loops(value)
        if None in layers or combine is None or loops is None:
            return None
        kept = tuple(layer for layer in layers if layer is not None)
        return OrderGroup(kept, combine, loops, value.place)


def _is_empty(value: Value) -> bool:
    return isinstance(value, Scalar) and value.value is None and not value.text
