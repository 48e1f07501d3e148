"""What is done to the streams of one block, in a form that can be compared with what is done to those of another.

Nodes of one *form* do the same to what they start from. What is a block's own does not count: which number a name ends
in, at which index a context is read, what a tensor is scaled or shifted by. Nor does spelling: `x + a`, `a + x`,
`torch.add(input=a, other=x)` and `x.add(a)` are of one form. Nodes of one *value* are equal in all that.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from enum import Enum, auto
from typing import Any

import torch
from torch import fx

SPELLINGS = {"multiply": "mul", "subtract": "sub", "divide": "div", "true_divide": "div", "truediv": "div"}
ARITHMETIC = frozenset({"add", "sub", "mul", "div"})
COMMUTATIVE = frozenset({"add", "mul"})
OPERANDS = ("input", "other")  # what torch calls the two operands of arithmetic

Resolve = Callable[[fx.Node], Hashable]


def name_of(node: fx.Node) -> str:
    """What a function or method is called, in one spelling; the path of a module."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", repr(node.target))
    plain = name.strip("_")
    return SPELLINGS.get(plain, plain)


def is_arithmetic(node: fx.Node) -> bool:
    """Whether a node adds, subtracts, multiplies or divides tensors or numbers, two at a time."""
    if node.op not in ("call_function", "call_method") or len(node.args) > len(OPERANDS):
        return False
    return name_of(node) in ARITHMETIC and isinstance(node.meta.get("value"), (torch.Tensor, int, float))


class Freedom(Enum):
    """What may differ between nodes of one form."""

    NOTHING = auto()
    OWN_NUMBERS = auto()  # fractions, and the numbers of arithmetic; others may be dimensions
    ALL_NUMBERS = auto()  # those in names too


class Forms:
    """Numbers the forms of the nodes of one graph: equal forms have equal numbers."""

    def __init__(self, contexts: Iterable[fx.Node]) -> None:
        """`contexts` are the nodes that depend on no block, in the order of the graph."""
        self.numbers: dict[Hashable, int] = {}
        self.contexts: dict[fx.Node, int] = {}
        self.values: dict[fx.Node, int] = {}
        for node in contexts:
            self.contexts[node] = self.number(_describe(node, self.contexts.__getitem__, Freedom.ALL_NUMBERS))
            self.values[node] = self.number(_describe(node, self.values.__getitem__, Freedom.NOTHING))

    def read(self, nodes: Iterable[fx.Node], labels: Mapping[fx.Node, Hashable]) -> dict[fx.Node, int]:
        """The forms of what is done to the nodes that `labels` names, by these nodes in the order of the graph."""
        found: dict[fx.Node, int] = {}

        def resolve(used: fx.Node) -> Hashable:
            if used in labels:
                return labels[used]
            return found[used] if used in found else ("context", self.contexts.get(used))

        for node in nodes:
            form = labels[node] if node in labels else _describe(node, resolve, Freedom.OWN_NUMBERS)
            found[node] = self.number(form)
        return found

    def number(self, form: Hashable) -> int:
        return self.numbers.setdefault(form, len(self.numbers))


def _describe(node: fx.Node, resolve: Resolve, freedom: Freedom) -> Hashable:
    """The form of a node, from those of its operands."""

    def describe(value: Any) -> Hashable:
        return _describe_operand(value, resolve, freedom, is_arithmetic=is_arithmetic(node))

    if not is_arithmetic(node):
        is_path = node.op in ("placeholder", "get_attr", "call_module")
        target = _name(str(node.target), freedom) if is_path else node.target
        return node.op, target, describe(node.args), describe(node.kwargs)
    named = {**dict(zip(OPERANDS, node.args, strict=False)), **node.kwargs}
    forms = {key: describe(value) for key, value in named.items()}
    if name_of(node) in COMMUTATIVE and forms.keys() == set(OPERANDS):
        return name_of(node), frozenset(Counter(forms.values()).items())
    return name_of(node), tuple(sorted(forms.items()))


def _describe_operand(value: Any, resolve: Resolve, freedom: Freedom, *, is_arithmetic: bool) -> Hashable:
    def describe(inner: Any) -> Hashable:
        return _describe_operand(inner, resolve, freedom, is_arithmetic=is_arithmetic)

    is_free = freedom is Freedom.ALL_NUMBERS or (is_arithmetic and freedom is Freedom.OWN_NUMBERS)
    match value:
        case fx.Node():
            return resolve(value)
        case tuple() | list():
            return "sequence", tuple(describe(item) for item in value)
        case dict():
            return "mapping", frozenset((key, describe(item)) for key, item in value.items())
        case slice():
            return "slice", describe((value.start, value.stop, value.step))
        case float() if freedom is not Freedom.NOTHING:
            return "number"
        case int() if is_free and not isinstance(value, bool):
            return "number"
        case str():
            return _name(value, freedom)
    return type(value), value if isinstance(value, Hashable) else repr(value)


def _name(name: str, freedom: Freedom) -> str:
    return re.sub(r"\d+", "#", name) if freedom is Freedom.ALL_NUMBERS else name
