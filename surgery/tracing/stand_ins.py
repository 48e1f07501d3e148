"""Stand-ins for the blocks of a model whose forward runs as it is: they see what each block is given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import nn

from surgery.errors import RefusedError
from surgery.torch_internals import twin_with_own_children

Respond = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class StandIn(nn.Module):
    """Called in a block's place. Attributes that the forward reads off the block are those of the block itself.

    Of a block that the plan removes, they are those of its clone without memory: weights are not to be read.
    """

    def __init__(self, name: str, respond: Respond) -> None:
        super().__init__()
        self.__dict__.update(name=name, original=None, is_removed=False, respond=respond)

    def stand_for(self, original: nn.Module, *, is_removed: bool) -> None:
        """Name the block, or the clone of one that the plan removes."""
        self.__dict__.update(original=original, is_removed=is_removed)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["respond"](args, kwargs)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__dict__["original"], name)
        path = f"{self.__dict__['name']}.{name}"
        if not self.__dict__["is_removed"]:
            return value
        if isinstance(value, nn.Module):
            return part_of_removed(path, value)
        if isinstance(value, torch.Tensor):
            refuse_to_read(path)
        return value


def part_of_removed(path: str, module: nn.Module) -> StandIn:
    """The stand-in of a part of a block that the plan removes: its plain attributes can be read, and no more."""
    part = StandIn(path, lambda *_: refuse_to_read(path))
    part.stand_for(module, is_removed=True)
    return part


def refuse_to_read(path: str) -> NoReturn:
    raise RefusedError(f"the forward reads {path}, which the plan removes; keep it")


def shadow_of(
    model: nn.Module, original_class: type[nn.Module], stacks: Mapping[str, Sequence[nn.Module]]
) -> nn.Module:
    """A module of `original_class` that is `model` but for its stacks; nothing of `model` is changed."""
    shadow = twin_with_own_children(model)
    shadow.__class__ = original_class
    for path, blocks in stacks.items():
        *parents, last = path.split(".")
        here = shadow
        for parent in parents:
            below = twin_with_own_children(here.get_submodule(parent))
            here.add_module(parent, below)
            here = below
        here.add_module(last, nn.ModuleList(blocks))
    return shadow
