"""Stand-ins for the blocks of a model whose forward runs as it is: they see what each block is given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from surgery.errors import RefusedError
from surgery.torch_internals import twin_with_own_children

Respond = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class StandIn(nn.Module):
    """Called in a block's place. Attributes that the forward reads off the block are those of the block itself."""

    def __init__(self, name: str, respond: Respond) -> None:
        super().__init__()
        self.__dict__.update(name=name, original=None, respond=respond)

    def stand_for(self, original: nn.Module | None) -> None:
        """Name the block; None for one that the plan removes."""
        self.__dict__["original"] = original

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["respond"](args, kwargs)

    def __getattr__(self, name: str) -> Any:
        original = self.__dict__["original"]
        if original is None:
            raise RefusedError(f"the forward reads {name} of {self.__dict__['name']}, which the plan removes; keep it")
        return getattr(original, name)


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
