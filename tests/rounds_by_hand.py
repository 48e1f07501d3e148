"""The edit by hand where a forward does more around its blocks: its own loop goes through other rounds.

`for index, block in enumerate(self.blocks)` is given the numbers and blocks of a schedule, one after the other, and so
is `zip(self.blocks, self.others)`: what the loop does in a round goes with the number of the block.
"""

import ast
import builtins
import contextlib
import copy
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from hand_edits import NoHandEditError
from torch import nn

from surgery.plan.schedule import Group, Schedule, unroll

COUNTS_ROUNDS = re.compile(r"\.(pop|append)\(|^\s*\w+ \+= 1$", re.MULTILINE)


class _Rounds(nn.ModuleList):
    """The blocks of a stack; who goes through all of them, goes through `rounds`."""

    rounds: Sequence[int] | None = None

    def __iter__(self) -> Iterator[nn.Module]:
        return super().__iter__() if self.rounds is None else iter([self[index] for index in self.rounds])


class _Zipped(list[Any]):
    rounds: Sequence[int] | None = None


def _enumerate(items: Any, start: int = 0) -> Any:
    rounds = getattr(items, "rounds", None)
    return builtins.enumerate(items, start) if rounds is None else builtins.zip(rounds, items, strict=True)


def _zip(*lists: Any, strict: bool = False) -> Any:
    rounds = next((items.rounds for items in lists if getattr(items, "rounds", None) is not None), None)
    if rounds is None:
        return builtins.zip(*lists, strict=strict)
    zipped = _Zipped(builtins.zip(*([items[index] for index in rounds] for items in lists), strict=True))
    zipped.rounds = rounds
    return zipped


@torch.no_grad()
def run_rounds_by_hand(model: nn.Module, schedule: Schedule, call: Mapping[str, Any]) -> Any:
    """What the model returns for a call with one of its stacks under a schedule; the model is left as it is.

    Raises:
        NoHandEditError: the schedule is no list of blocks, or the loop counts its rounds or is another one.
    """
    layers = list(unroll(schedule.items))
    if any(isinstance(item, Group) for item in schedule.items) or any(layer.scale != 1.0 for layer in layers):
        raise NoHandEditError("a loop runs its blocks one after the other, as they are")
    edited = copy.deepcopy(model)
    path, _, name = schedule.stack.rpartition(".")
    owner = edited.get_submodule(path)
    if any(COUNTS_ROUNDS.search(ast.unparse(loop)) for loop in _loops_over(type(owner), name)):
        raise NoHandEditError("the loop may count its rounds")
    blocks = _Rounds(owner.get_submodule(name).children())
    blocks.rounds = [layer.index for layer in layers]
    setattr(owner, name, blocks)
    run: list[int] = []
    for index in range(len(blocks)):
        blocks[index].register_forward_pre_hook(lambda *_, index=index: run.append(index))
    with _loops_through_rounds(sys.modules[type(owner).__module__]):
        result = edited(**call)
    if run != blocks.rounds:
        raise NoHandEditError(f"the forward does not go through {name} in a loop of its own")
    return result


def _loops_over(owner: type[nn.Module], stack: str) -> list[ast.For]:
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(owner.forward)))
    loops = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.For)]
    return [loop for loop in loops if f".{stack}" in ast.unparse(loop.iter)]


@contextlib.contextmanager
def _loops_through_rounds(module: ModuleType) -> Iterator[None]:
    """Within it the code of a module enumerates and zips by rounds."""
    module.__dict__.update(enumerate=_enumerate, zip=_zip)
    try:
        yield
    finally:
        del module.__dict__["enumerate"], module.__dict__["zip"]
