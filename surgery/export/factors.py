"""Contributions -> LoKr factors, what LyCORIS makes of a factor, and how many parameters that trains.

A LoKr layer of a weight (out, in, *kernel) is the Kronecker product of w1 (m_out, m_in) and w2 (out / m_out,
in / m_in, *kernel), with m = `effective_factor(width, factor)`: a larger factor trains fewer parameters.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from surgery.errors import InputError

LARGEST_FACTOR = 32  # beyond about the square root of a width some layers can't be loaded again


@dataclass(frozen=True)
class TrainableModule:
    """A linear layer or convolution within a block, by its dotted name in the transformer; shape (out, in, *kernel)."""

    name: str
    stack: str
    block: int
    shape: tuple[int, ...]

    @property
    def inside(self) -> str:
        """The name within the block."""
        return self.name.removeprefix(f"{self.stack}.{self.block}.")


@cache
def effective_factor(width: int, factor: int) -> int:
    """What LyCORIS makes of a factor: the smaller part of `width`.

    A factor that divides the width is taken (or its counterpart, where that is smaller); otherwise the largest divisor
    that is neither larger than it nor than the square root of the width. Below 0: nearest to the square root.
    """
    if factor > 0 and width % factor == 0:
        return min(factor, width // factor)
    limit = math.isqrt(width) if factor < 0 else min(factor, math.isqrt(width))
    return max(divisor for divisor in range(1, max(limit, 1) + 1) if width % divisor == 0)


def split_shape(shape: Sequence[int], factor: int) -> tuple[int, int]:
    """The shape of w1 for a weight (out, in, *kernel)."""
    return effective_factor(shape[0], factor), effective_factor(shape[1], factor)


def count_lokr_parameters(shape: Sequence[int], factor: int) -> int:
    """Of a full-matrix LoKr layer: w1 and w2."""
    out, into = split_shape(shape, factor)
    return out * into + (shape[0] // out) * (shape[1] // into) * math.prod(shape[2:])


def factors_of_shares(shares: Iterable[float], max_factor: int, critical: Collection[int] = ()) -> tuple[int, ...]:
    """Factor 1 for a share of 1, `max_factor` for 0, linear between, rounded half to even; 1 for critical layers."""
    found = (round((1 - share) * (max_factor - 1) + 1) for share in shares)
    return tuple(1 if layer in critical else min(max(factor, 1), max_factor) for layer, factor in enumerate(found))


def to_power_of_two(factor: int) -> int:
    """The nearest power of two, the larger of two that are as near: those are exact for nearly all widths."""
    return min((2**n for n in range(factor.bit_length() + 1)), key=lambda power: (abs(power - factor), -power))


def solve_max_factor(count: Callable[[int], int], budget: int, largest: int = LARGEST_FACTOR) -> int:
    """The factor F with the most parameters `count(F)` within the budget; the smallest of several.

    Raises:
        InputError: none is, up to `largest`.
    """
    counts = {factor: count(factor) for factor in range(1, largest + 1)}
    within = {factor: number for factor, number in counts.items() if number <= budget}
    if not within:
        least = min(counts.values())
        raise InputError(
            f"no factor up to {largest} trains {budget:,} parameters or fewer: the fewest are {least:,}; raise "
            "--budget, force fewer layers to factor 1 (--critical), or train fewer stacks (--stack)"
        )
    return max(within, key=lambda factor: (within[factor], -factor))


def list_trainable(model: Any, stacks: Iterable[str]) -> tuple[TrainableModule, ...]:
    """The linear layers and convolutions of the blocks of some stacks, in the model's order, without `list_grouped`."""
    found = []
    for name, stack, block, module in _modules_of_blocks(model, stacks):
        shape = shape_of(module)
        if shape is not None and not _is_grouped(module):
            found.append(TrainableModule(name, stack, block, shape))
    return tuple(found)


def list_grouped(model: Any, stacks: Iterable[str]) -> tuple[str, ...]:
    """Patterns of the convolutions with groups (depthwise ones): LyCORIS before 4 gives them wrong weights."""
    names = (
        f"{stack}.*.{name.removeprefix(f'{stack}.{block}.')}"
        for name, stack, block, module in _modules_of_blocks(model, stacks)
        if _is_grouped(module)
    )
    return tuple(dict.fromkeys(names))


def _modules_of_blocks(model: Any, stacks: Iterable[str]) -> Iterator[tuple[str, str, int, Any]]:
    for stack in stacks:
        for block, member in model.get_submodule(stack).named_children():
            for name, module in member.named_modules(prefix=f"{stack}.{block}"):
                yield name, stack, int(block), module


def _is_grouped(module: Any) -> bool:
    return shape_of(module) is not None and getattr(module, "groups", 1) > 1


def shape_of(module: Any) -> tuple[int, ...] | None:
    """(out, in, *kernel) of what LyCORIS trains; None of everything else."""
    from torch import nn

    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return module.out_channels, module.in_channels // module.groups, *module.kernel_size
    return None
