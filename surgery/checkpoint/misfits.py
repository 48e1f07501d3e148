"""Blocks that the stock class takes in their new places, but not whole: what is left over of them.

The class says what a place wants. A block may have more than that: tensors and rows for which there is no place, or
modules that are told something else (the width of a window). SD3's last block wants less than the others and runs as
they would; whether that is so is seen by running the model, not by its files.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from surgery.anatomy.tensor_files import num_rows
from surgery.checkpoint.new_checkpoint import Misfit
from surgery.tracing.stack_code import is_read


def find_misfits(original: nn.Module, pruned: nn.Module, orders: Mapping[str, Sequence[int]]) -> Iterator[Misfit]:
    """The blocks that do not come whole, place by place; both models are the stock class, and the tensors fit."""
    for stack, order in orders.items():
        for position, layer in enumerate(order):
            block, place = f"{stack}.{layer}", f"{stack}.{position}"
            before, after = original.get_submodule(block), pruned.get_submodule(place)
            tensors, settings = _left_over(before, after), tuple(_other_settings(before, after))
            if tensors or settings:
                yield Misfit(block, place, tensors, settings)


def _left_over(before: nn.Module, after: nn.Module) -> tuple[str, ...]:
    """The tensors of a block that have no place, or not for all their rows."""
    wanted = {name: num_rows(value.shape) for name, value in after.state_dict().items()}
    return tuple(name for name, value in before.state_dict().items() if wanted.get(name, 0) < num_rows(value.shape))


def _other_settings(before: nn.Module, after: nn.Module) -> Iterator[str]:
    """Numbers and names that the class gives to a module of a block there and not here, and that its code reads."""
    there = dict(after.named_modules())
    for name, module in before.named_modules():
        twin = there.get(name)
        if twin is None or type(twin) is not type(module):
            continue
        own, other = _settings(module), _settings(twin)
        readers = {type(before), type(module), type(getattr(module, "processor", module))}
        for key in sorted(own.keys() & other.keys()):
            if own[key] != other[key] and is_read(readers, key.rpartition(".")[2]):
                yield f"{name}.{key}".removeprefix(".") + f": {other[key]!r}"


def _settings(module: nn.Module) -> dict[str, Any]:
    """The plain values among a module's attributes, and among those of its attention processor."""
    processor = vars(module).get("processor")
    found = {f"processor.{key}": value for key, value in getattr(processor, "__dict__", {}).items()}
    found |= vars(module)
    return {key: value for key, value in found.items() if not key.startswith("_") and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
