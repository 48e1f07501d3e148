"""A batch whose rows run under different plans: cut into parts that run apart, and joined again in order.

What has as many entries along its first dimension as the call has rows is of the rows (a list with an entry a row too,
but for one of tensors of all rows: a ControlNet's residuals, a layer each); all else is of the whole call.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from surgery.errors import RefusedError
from surgery.pipelines.conditioning_rows import is_an_entry_a_row


def num_rows_of(value: Any) -> int:
    """The number of rows of a call, by its first argument: a tensor (rows, ...), or a list with an entry a row."""
    return len(value) if isinstance(value, (list, tuple)) or (isinstance(value, torch.Tensor) and value.ndim) else 1


def rows_within(value: Any, rows: Sequence[int], num_rows: int, *, is_listed: bool) -> Any:
    """What a part of the rows is given, of a value that all are given; the structure is kept.

    `is_listed` says that the rows themselves come as a list.
    """
    if isinstance(value, torch.Tensor):
        is_of_rows = value.ndim > 0 and len(value) == num_rows
        return value[torch.tensor(rows, device=value.device)] if is_of_rows else value
    if isinstance(value, (list, tuple)):
        if is_an_entry_a_row(value, num_rows, is_listed=is_listed):
            return type(value)(value[row] for row in rows)
        return type(value)(rows_within(item, rows, num_rows, is_listed=is_listed) for item in value)
    if isinstance(value, dict):
        return {name: rows_within(item, rows, num_rows, is_listed=is_listed) for name, item in value.items()}
    return value


def join_rows(outputs: Sequence[Any], parts: Sequence[Sequence[int]]) -> Any:
    """The output of all rows, from those of parts of them: tensors, lists with an entry a row, and what holds them.

    Raises:
        RefusedError: the outputs are of different kinds or not of the rows.
    """
    first = outputs[0]
    if isinstance(first, torch.Tensor):
        if any(not isinstance(item, torch.Tensor) or len(item) != len(rows) for item, rows in _pairs(outputs, parts)):
            raise RefusedError("what the transformer returns is not one entry a row; its batch can't be split (when)")
        order = torch.tensor([row for rows in parts for row in rows], device=first.device)
        return torch.cat(list(outputs))[torch.argsort(order)]
    if isinstance(first, dict):  # the outputs of diffusers are such
        return type(first)(**{name: join_rows([item[name] for item in outputs], parts) for name in first})
    if isinstance(first, (list, tuple)):
        if all(len(item) == len(rows) for item, rows in _pairs(outputs, parts)) and isinstance(first, list):
            by_row = {
                row: entry for item, rows in _pairs(outputs, parts) for row, entry in zip(rows, item, strict=True)
            }
            return [by_row[row] for row in sorted(by_row)]
        return type(first)(join_rows(list(items), parts) for items in zip(*outputs, strict=True))
    return first


def _pairs(outputs: Sequence[Any], parts: Sequence[Sequence[int]]) -> list[tuple[Any, Sequence[int]]]:
    return list(zip(outputs, parts, strict=True))


def run_apart(
    parts: Sequence[Sequence[int]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    run: Callable[[int, tuple[Any, ...], dict[str, Any]], Any],
) -> Any:
    """Run each part of the rows of a call by `run(number of the part, args, kwargs)`, and join what they return."""
    num_rows = sum(map(len, parts))
    is_listed = isinstance(next(iter((*args, *kwargs.values())), None), (list, tuple))
    outputs = []
    for number, rows in enumerate(parts):
        of_part = [rows_within(value, rows, num_rows, is_listed=is_listed) for value in (args, kwargs)]
        outputs.append(run(number, *of_part))
    return join_rows(outputs, parts)
