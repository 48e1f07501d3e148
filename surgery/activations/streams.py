"""Which tensors flow from block to block, seen in one forward as it runs: no trace, so it holds for every forward.

An argument of a block is a stream where it is what the block before it returned (the same tensor), or, where the
forward does something in between, where it changes from block to block and has the shape of one of its outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

TOKEN_NDIM = 3  # (batch, tokens, channels)


@dataclass(frozen=True)
class SeenStream:
    """A stream by the name of the blocks' argument, and where a block returns it (None: it returns one tensor)."""

    name: str
    output: int | None

    def find(self, output: Any) -> torch.Tensor | None:
        """This stream in what a block returned; None where that block returns none of it."""
        value = output if self.output is None else output[self.output] if self.output < len(output) else None
        return value if isinstance(value, torch.Tensor) else None


@dataclass(frozen=True)
class BlockCall:
    """The token-shaped arguments of a block by name, and what it returned."""

    arguments: Mapping[str, torch.Tensor]
    output: Any


def token_arguments(arguments: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The arguments of a call that are (batch, tokens, channels)."""
    return {name: value for name, value in arguments.items() if is_token_shaped(value)}


def is_token_shaped(value: Any) -> bool:
    """Whether a value is a floating-point tensor of (batch, tokens, channels)."""
    return isinstance(value, torch.Tensor) and value.ndim == TOKEN_NDIM and value.is_floating_point()


def find_streams(calls: Sequence[BlockCall]) -> tuple[SeenStream, ...]:
    """The streams of a stack, from the calls of its blocks in one forward, in their order."""
    outputs = _outputs(calls[0].output)
    found: list[SeenStream] = []
    following = calls[1].arguments if len(calls) > 1 else calls[0].arguments
    for name, value in following.items():
        taken = {stream.output for stream in found}
        left = {index: output for index, output in outputs.items() if index not in taken}
        index: Any = next((i for i, output in left.items() if is_same(output, value)), _NONE)
        if index is _NONE and not (len(calls) > 1 and is_same(calls[0].arguments.get(name), value)):
            index = next((i for i, output in left.items() if output.shape == value.shape), _NONE)
        if index is not _NONE:
            found.append(SeenStream(name, index))
    return tuple(found)


_NONE = object()


def _outputs(output: Any) -> dict[int | None, torch.Tensor]:
    values = enumerate(output) if isinstance(output, (tuple, list)) else [(None, output)]
    return {index: value for index, value in values if is_token_shaped(value)}


def is_same(one: torch.Tensor | None, other: torch.Tensor) -> bool:
    """Whether both are the same values in memory."""
    return one is not None and one.data_ptr() == other.data_ptr() and one.shape == other.shape
