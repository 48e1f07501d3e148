"""Where the tensors of the stock class lie in files: under their own names, or in the layout of the model's authors.

The original layout is learnt from diffusers' own converter, not written down: it is given tensors whose values number
their rows, and what comes out says which rows of which tensor of the file became which rows of the class's.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from surgery.anatomy.tensor_files import StoredTensor, TensorFile, Weights, num_rows
from surgery.checkpoint.new_checkpoint import NewTensor, Segment, join_segments
from surgery.diffusers_internals import find_converter
from surgery.errors import InputError, RefusedError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """For each tensor of the stock class the rows of the file's tensors that it is made of, in order."""

    rows: Mapping[str, tuple[Segment, ...]]

    def in_file(self, segment: Segment) -> list[Segment]:
        """Rows of a tensor of the class as rows of the file's tensors, changed in the same way."""
        found, position = [], 0
        for held in self.rows[segment.tensor]:
            start, stop = max(segment.start, position), min(segment.stop, position + held.num_rows)
            if start < stop:
                rows = segment.part(start - segment.start, stop - segment.start)
                first = held.start + start - position
                found.append(
                    Segment(
                        held.tensor,
                        first,
                        first + rows.num_rows,
                        rows.change,
                        rows.by,
                        rows.mean,
                        rows.mean_start,
                    )
                )
            position += held.num_rows
        return found


def stock_layout(weights: Weights, shapes: Shapes) -> Layout:
    """The layout of files that `save_pretrained` wrote for a class with tensors of these shapes.

    Raises:
        InputError: a tensor is missing or has another shape.
    """
    stored = weights.tensors
    where = weights.index or weights.files[0].path
    rows = {}
    for name, shape in shapes.items():
        if name not in stored:
            raise InputError(f"{where} has no {name}, which its config asks for; is the config of another model?")
        found = stored[name][1].shape
        if found != shape:
            raise InputError(
                f"{where}: {name} has the shape {found}, its config asks for {shape}; quantised weights can't be "
                "re-layered: prune the original, then quantise the result"
            )
        rows[name] = (Segment(name, 0, num_rows(shape)),)
    return Layout(rows)


def learn_original_layout(class_name: str, config: Mapping[str, Any], weights: Weights, shapes: Shapes) -> Layout:
    """The layout of a single file that `from_single_file` takes for this class.

    Raises:
        InputError: diffusers has no converter for the class, or it can't read the file as one of this config.
    """
    stored = {name: tensor for name, (_, tensor) in weights.tensors.items()}
    path = weights.files[0].path
    converted = convert_numbered(class_name, config, stored, f"{path}")
    starts, names = _row_starts(stored)
    rows: dict[str, tuple[Segment, ...]] = {}
    for name, shape in shapes.items():
        if name not in converted:
            raise InputError(
                f"{path} has no tensor for {name}, which its config asks for; is the config of another model?"
            )
        numbers = converted[name].flatten()
        held = _segments(numbers, starts, names)
        if len(numbers) != num_rows(shape) or any(not _same_row(stored[s.tensor], shape) for s in held):
            raise InputError(f"{path}: its tensor for {name} has not the shape {shape} that its config asks for")
        rows[name] = held
    return Layout(rows)


def convert_numbered(
    class_name: str, config: Mapping[str, Any], stored: Mapping[str, StoredTensor], where: str
) -> dict[str, torch.Tensor]:
    """What diffusers' converter makes of tensors with one value a row, which numbers the rows of all of them."""
    starts, _ = _row_starts(stored)
    numbered = {
        name: torch.arange(starts[name], starts[name] + num_rows(tensor.shape)).reshape(
            [num_rows(tensor.shape)] * bool(tensor.shape) + [1] * (len(tensor.shape) - 1)
        )
        for name, tensor in stored.items()
    }
    try:
        result: dict[str, torch.Tensor] = _converter(class_name)(checkpoint=numbered, config=dict(config))
    except (KeyError, IndexError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(
            f"{where} is no file of a {class_name} in its authors' layout: diffusers' converter stops at "
            f"{type(error).__name__} {error}"
        ) from None
    return result


def _converter(class_name: str) -> Callable[..., dict[str, torch.Tensor]]:
    converter = find_converter(class_name)
    if converter is None:
        raise InputError(f"diffusers reads no single files of a {class_name}; name a diffusers folder instead")
    return converter


def _row_starts(stored: Mapping[str, StoredTensor]) -> tuple[dict[str, int], list[str]]:
    starts, position = {}, 0
    for name, tensor in stored.items():
        starts[name] = position
        position += num_rows(tensor.shape)
    return starts, list(stored)


def _segments(numbers: torch.Tensor, starts: Mapping[str, int], names: Sequence[str]) -> tuple[Segment, ...]:
    """Runs of numbered rows, as rows of the tensors that they number."""
    firsts = torch.tensor([starts[name] for name in names])
    owners = torch.searchsorted(firsts, numbers, right=True) - 1
    breaks = ((numbers[1:] != numbers[:-1] + 1) | (owners[1:] != owners[:-1])).nonzero().flatten() + 1
    edges = [0, *breaks.tolist(), len(numbers)]
    found = []
    for begin, end in itertools.pairwise(edges):
        if begin < end:
            name = names[int(owners[begin])]
            first = int(numbers[begin]) - starts[name]
            found.append(Segment(name, first, first + end - begin))
    return join_segments(found)


def _same_row(stored: StoredTensor, shape: tuple[int, ...]) -> bool:
    def row(shape: tuple[int, ...]) -> int:
        return int(torch.Size(shape[1:]).numel())

    return row(stored.shape) == row(shape)


def block_prefix(layout: Layout, stack: str, index: int) -> str:
    """What the names of a block's tensors begin with in the file, its number included.

    Raises:
        RefusedError: they do not all begin with the same.
    """
    prefixes = set()
    for name, segments in layout.rows.items():
        if name.startswith(f"{stack}.{index}."):
            for segment in segments:
                found = re.match(rf"(.*?(?:^|\.)){index}\.", segment.tensor)
                prefixes.add(found[0] if found else None)
    prefix = prefixes.pop() if len(prefixes) == 1 else None
    if prefix is None:
        raise RefusedError(f"the tensors of {stack}[{index}] do not lie together under one name in this file")
    return prefix


def in_original_layout(
    fitted: Sequence[NewTensor],
    wanted: Shapes,
    shapes: Shapes,
    layout: Layout,
    orders: Mapping[str, Sequence[int]],
    weights: Weights,
) -> list[NewTensor]:
    """Tensors of the stock class as tensors of a file in the original layout.

    `wanted` and `shapes` are those of the class after and before. A tensor is named like that of a block of the
    original which has it in the wanted shape (the block itself, if it is one), with the number of its place. Tensors
    that the class does not know go with their blocks, or stay.

    Raises:
        RefusedError: the file has no tensor of such a kind, or its tensors do not follow the blocks.
    """
    parts: dict[str, dict[int, list[Segment]]] = {}
    for tensor in fitted:
        stack = next((stack for stack in orders if tensor.name.startswith(f"{stack}.")), None)
        alike, prefix, renamed = tensor.name, "", ""
        if stack is not None:
            place, _, rest = tensor.name.removeprefix(f"{stack}.").partition(".")
            template = _find_template(stack, orders[stack][int(place)], rest, wanted[tensor.name], shapes)
            alike, prefix = f"{stack}.{template}.{rest}", block_prefix(layout, stack, template)
            renamed = f"{prefix.removesuffix(f'{template}.')}{place}."
        position = 0
        for held in layout.rows[alike]:
            rows = _cut(tensor.segments, position, position + held.num_rows)
            name = renamed + held.tensor.removeprefix(prefix)
            parts.setdefault(name, {})[held.start] = [s for row in rows for s in layout.in_file(row)]
            position += held.num_rows
    for name, (_, stored) in _unknown(layout, weights):
        whole = [Segment(name, 0, num_rows(stored.shape))]
        parts.update({other: {0: whole} for other in _names_of_unknown(name, layout, orders)})
    return [
        NewTensor(name, join_segments([segment for start in sorted(found) for segment in found[start]]))
        for name, found in parts.items()
    ]


def _unknown(layout: Layout, weights: Weights) -> list[tuple[str, tuple[TensorFile, StoredTensor]]]:
    """The tensors of a file of which the class knows nothing."""
    used = {segment.tensor for segments in layout.rows.values() for segment in segments}
    return [(name, stored) for name, stored in weights.tensors.items() if name not in used]


def _names_of_unknown(name: str, layout: Layout, orders: Mapping[str, Sequence[int]]) -> list[str]:
    """What a tensor is called in the new file: it goes with its block, if it lies under the name of one."""
    for stack, order in orders.items():
        numbers = {int(n.removeprefix(f"{stack}.").split(".")[0]) for n in layout.rows if n.startswith(f"{stack}.")}
        for number in numbers:
            prefix = block_prefix(layout, stack, number)
            if name.startswith(prefix):
                head, rest = prefix.removesuffix(f"{number}."), name.removeprefix(prefix)
                return [f"{head}{place}.{rest}" for place, layer in enumerate(order) if layer == number]
    return [name]


def _find_template(stack: str, layer: int, rest: str, shape: tuple[int, ...], shapes: Shapes) -> int:
    """A block of the original that has the tensor `rest` in this shape: `layer` itself, or the last of them."""
    if shapes.get(f"{stack}.{layer}.{rest}") == shape:
        return layer
    ending = f".{rest}"
    numbers = [name.removeprefix(f"{stack}.").removesuffix(ending) for name in shapes if name.startswith(f"{stack}.")]
    alike = [int(number) for number in numbers if number.isdigit() and shapes[f"{stack}.{number}{ending}"] == shape]
    if not alike:
        raise RefusedError(f"this file has no block of {stack} with a {rest} of shape {shape}, which the plan needs")
    return alike[-1]


def _cut(segments: Sequence[Segment], start: int, stop: int) -> list[Segment]:
    """Rows `start` to `stop` of what segments make one after the other."""
    found, position = [], 0
    for segment in segments:
        first, last = max(start, position), min(stop, position + segment.num_rows)
        if first < last:
            found.append(segment.part(first - position, last - position))
        position += segment.num_rows
    return found
