"""Where the tensors of the stock class lie in files: under their own names, or in the layout of the model's authors.

The original layout is learnt from diffusers' own converter, not written down: it is given tensors whose values number
their rows, and what comes out says which rows of which tensor of the file became which rows of the class's.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from surgery.anatomy.tensor_files import StoredTensor, Weights
from surgery.checkpoint.relayering import NewTensor, Segment, join_segments
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
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    known = SINGLE_FILE_LOADABLE_CLASSES.get(class_name)
    if known is None:
        raise InputError(f"diffusers reads no single files of a {class_name}; name a diffusers folder instead")
    converter: Callable[..., dict[str, torch.Tensor]] = known["checkpoint_mapping_fn"]
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
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        if begin < end:
            name = names[int(owners[begin])]
            first = int(numbers[begin]) - starts[name]
            found.append(Segment(name, first, first + end - begin))
    return join_segments(found)


def _same_row(stored: StoredTensor, shape: tuple[int, ...]) -> bool:
    def row(shape: tuple[int, ...]) -> int:
        return int(torch.Size(shape[1:]).numel())

    return row(stored.shape) == row(shape)


def num_rows(shape: Sequence[int]) -> int:
    """The size of the first dimension, 1 for a scalar."""
    return shape[0] if len(shape) else 1


def block_prefix(layout: Layout, stack: str, index: int) -> str | None:
    """What the names of a block's tensors begin with in the file, its number included; None where they do not agree."""
    prefixes = set()
    for name, segments in layout.rows.items():
        if name.startswith(f"{stack}.{index}."):
            for segment in segments:
                found = re.match(rf"(.*?(?:^|\.)){index}\.", segment.tensor)
                prefixes.add(found[0] if found else None)
    return prefixes.pop() if len(prefixes) == 1 else None


def in_original_layout(
    fitted: Sequence[NewTensor], layout: Layout, templates: Mapping[str, Sequence[int]], weights: Weights
) -> list[NewTensor]:
    """Tensors of the stock class as tensors of a file in the original layout.

    `templates` names for each place of each stack a block of the original of the kind that stands there: its tensors'
    names, with the number of the place, are those of the new file. Tensors that the class does not know stay.

    Raises:
        RefusedError: the tensors of the file do not follow the blocks.
    """
    places = {
        f"{stack}.{place}": (f"{stack}.{template}", _renumber(layout, stack, template, place))
        for stack, chosen in templates.items()
        for place, template in enumerate(chosen)
    }
    parts: dict[str, dict[int, list[Segment]]] = {}
    for tensor in fitted:
        stack = next((stack for stack in templates if tensor.name.startswith(f"{stack}.")), None)
        held_name, rename = tensor.name, str
        if stack is not None:
            place, _, rest = tensor.name.removeprefix(f"{stack}.").partition(".")
            template, rename = places[f"{stack}.{place}"]
            held_name = f"{template}.{rest}"
        position = 0
        for held in layout.rows[held_name]:
            rows = _cut(tensor.segments, position, position + held.num_rows)
            parts.setdefault(rename(held.tensor), {})[held.start] = [s for row in rows for s in layout.in_file(row)]
            position += held.num_rows
    used = {segment.tensor for segments in layout.rows.values() for segment in segments}
    for name, (_, stored) in weights.tensors.items():
        if name not in used:
            parts[name] = {0: [Segment(name, 0, num_rows(stored.shape))]}
    return [
        NewTensor(name, join_segments([segment for start in sorted(found) for segment in found[start]]))
        for name, found in parts.items()
    ]


def _renumber(layout: Layout, stack: str, template: int, place: int) -> Callable[[str], str]:
    prefix = block_prefix(layout, stack, template)
    if prefix is None:
        raise RefusedError(f"the tensors of {stack}[{template}] do not lie together under one name in this file")
    renamed = prefix.removesuffix(f"{template}.") + f"{place}."
    return lambda name: renamed + name.removeprefix(prefix)


def _cut(segments: Sequence[Segment], start: int, stop: int) -> list[Segment]:
    """Rows `start` to `stop` of what segments make one after the other."""
    found, position = [], 0
    for segment in segments:
        first, last = max(start, position), min(stop, position + segment.num_rows)
        if first < last:
            found.append(segment.part(first - position, last - position))
        position += segment.num_rows
    return found
