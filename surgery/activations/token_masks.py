"""Which tokens of a stack's tensors are padding: of its blocks' arguments, and of what a block makes of them.

An output has the tokens of the argument of its name, or of the only argument with as many; or those of several in one
sequence, in the order in which the stack's first block joined them (`torch.cat` along tokens) in the first forward.
Copies of arguments that are joined are known by their lengths: where those were equal in that forward, padding is not
known.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from surgery.activations.streams import TOKEN_NDIM, is_same, is_token_shaped


@dataclass(frozen=True)
class TokenArgument:
    """An argument of a stack's first block, for whoever knows which of its tokens are padding.

    `arguments` are those of the model's forward, `branches` the branch of each row; shape is (rows, tokens, channels).
    `is_picture` where it is what the forward makes of its first argument: picture tokens, or all in one sequence.
    """

    arguments: Mapping[str, Any]
    branches: Sequence[str]
    name: str
    shape: tuple[int, ...]
    is_picture: bool


FindMask = Callable[[TokenArgument], torch.Tensor | None]  # which (rows, tokens) are no padding; None: unknown


def no_mask(argument: TokenArgument) -> None:
    """Padding is not known."""


@dataclass(eq=False)
class TokenMasks:
    """The masks of a stack in the forward at hand.

    `shapes` are (rows, tokens) of the arguments of its first block that have all rows, `known` the masks of those whose
    padding is known. `joins` are arguments that the block joins to one sequence, in their order: seen once, they hold
    for every forward.
    """

    shapes: dict[str, torch.Size] = field(default_factory=dict)
    known: dict[str, torch.Tensor] = field(default_factory=dict)
    joins: set[tuple[str, ...]] = field(default_factory=set)

    def begin(
        self, arguments: Mapping[str, torch.Tensor], find: Callable[[str, torch.Tensor], torch.Tensor | None]
    ) -> None:
        """A forward has come to the first block; `find` gives the mask of an argument."""
        rows = max((len(value) for value in arguments.values()), default=0)
        self.shapes = {name: value.shape[:2] for name, value in arguments.items() if len(value) == rows}
        masks = {name: find(name, arguments[name]) for name in self.shapes}
        self.known = {n: mask.to(arguments[n].device).bool() for n, mask in masks.items() if mask is not None}

    def of_output(self, stream: str, shape: torch.Size) -> torch.Tensor | None:
        """The mask of an output (rows, tokens) that a component names by one of its own arguments.

        None where it is not known which tokens it has: two arguments have as many, or two joins.
        """
        if not self.known:
            return None
        of_length = [name for name, known in self.shapes.items() if known == shape]
        if stream in of_length:
            return self.known.get(stream)
        if of_length:
            return self.known.get(of_length[0]) if len(of_length) == 1 else None
        possible = [names for names in self.joins if self.shapes.keys() >= set(names)]
        joins = [names for names in possible if self._joined_shape(names) == shape]
        return self._joined_mask(joins[0]) if len(joins) == 1 else None

    def _joined_shape(self, names: Sequence[str]) -> torch.Size:
        return torch.Size([self.shapes[names[0]][0], sum(self.shapes[name][1] for name in names)])

    def _joined_mask(self, names: Sequence[str]) -> torch.Tensor | None:
        if not self.known.keys() & set(names):
            return None
        like = next(iter(self.known.values()))
        return torch.cat([self.known.get(name, like.new_ones(self.shapes[name])) for name in names], 1)

    def watching(self, arguments: Mapping[str, torch.Tensor]) -> TorchFunctionMode:
        """Within it, what is joined of these arguments of the first block, or of what has their tokens, is seen."""
        return _Joining(functools.partial(self._note, arguments))

    def _note(self, arguments: Mapping[str, torch.Tensor], parts: Sequence[torch.Tensor]) -> None:
        names = [self._name_of(arguments, part) for part in parts]
        found = tuple(name for name in names if name is not None)
        if len(found) == len(names) > 1:
            self.joins.add(found)

    def _name_of(self, arguments: Mapping[str, torch.Tensor], part: torch.Tensor) -> str | None:
        """The argument that a part is, or else the only one with as many tokens."""
        same = [name for name in self.shapes if is_same(arguments[name], part)]
        of_length = [name for name, shape in self.shapes.items() if shape == part.shape[:2]]
        found = same or of_length
        return found[0] if len(found) == 1 else None


class _Joining(TorchFunctionMode):
    """Tells of tensors (rows, tokens, channels) that are joined along tokens."""

    def __init__(self, note: Callable[[Sequence[torch.Tensor]], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in (torch.cat, torch.concat, torch.concatenate):
            parts = args[0] if args else named.get("tensors", ())
            dim = args[1] if len(args) > 1 else named.get("dim", named.get("axis", 0))
            if dim in (1, 1 - TOKEN_NDIM) and all(is_token_shaped(part) for part in parts):
                self.note(parts)
        return func(*args, **named)
