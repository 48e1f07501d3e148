"""What a transformer is given -> the conditioning of each row of its batch, and which rows have the same."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

TOLERANCE = 0.01  # relative; bfloat16 rounds to 0.004, and two prompts are further apart


@dataclass(frozen=True)
class Conditioning:
    """Of a forward: for each argument of the rows a tensor a row.

    `direct` is by what is given to each row; `nested` by what lists and dicts hold too: mostly residuals, which follow
    from the latents.
    """

    num_rows: int
    direct: tuple[Sequence[torch.Tensor], ...]
    nested: tuple[Sequence[torch.Tensor], ...]


def conditioning_of(arguments: Mapping[str, Any]) -> Conditioning:
    """That of a forward with these arguments, of which the first are the latents."""
    values = list(arguments.values())
    rows = len(values[0])
    is_listed = isinstance(values[0], list)
    direct = [value for value in values[1:] if _is_of_rows(value, rows, is_listed=is_listed)]
    found = (tuple(_batches(given, rows, is_listed=is_listed)) for given in (direct, values[1:]))
    return Conditioning(rows, *found)


def is_near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two are the same but for rounding: the same text in two rows of a batch may differ in its last bits."""
    if one.shape != other.shape:
        return False
    one, other = one.detach().float(), other.detach().float()
    return bool((one - other).norm() <= TOLERANCE * one.norm())


def is_an_entry_a_row(value: Sequence[Any], rows: int, *, is_listed: bool) -> bool:
    """Whether a list has a tensor a row: latents or texts of unequal sizes.

    As many tensors that are of all rows are none: a ControlNet's residuals, one a layer. Where the latents themselves
    come as such a list (`is_listed`), so does all else.
    """
    if len(value) != rows or not all(isinstance(item, torch.Tensor) and item.ndim for item in value):
        return False
    return is_listed or any(len(item) != rows for item in value)


def _is_of_rows(value: Any, rows: int, *, is_listed: bool) -> bool:
    is_list = isinstance(value, (list, tuple))
    return isinstance(value, torch.Tensor) or (is_list and is_an_entry_a_row(value, rows, is_listed=is_listed))


def _batches(values: Iterable[Any], rows: int, *, is_listed: bool) -> Iterator[Sequence[torch.Tensor]]:
    """All tensors of so many rows, and lists with a tensor a row."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.ndim and len(value) == rows:
                yield list(value)
        elif isinstance(value, Mapping):
            yield from _batches(value.values(), rows, is_listed=is_listed)
        elif isinstance(value, (list, tuple)):
            if is_an_entry_a_row(value, rows, is_listed=is_listed):
                yield value
            else:
                yield from _batches(value, rows, is_listed=is_listed)
