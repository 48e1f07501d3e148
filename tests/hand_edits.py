"""The edit by hand of a stack of any class: what its blocks hand on is seen by running it, no graph and no table.

A first run of the unedited model notes what each block is given and returns. An output of every block that is the value
of one argument of the next is a stream. In a second run the first block of the stack does the work of the whole
schedule, each block with all else that it was given in the first run, and the others hand their streams through.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from torch import nn

from surgery.plan.schedule import Group, Item, Layer, Repetition, Schedule

Streams = dict[str, torch.Tensor]


class NoHandEditError(Exception):
    """A forward does more between the blocks of a stack than to hand on what they return."""


@dataclass(frozen=True)
class Chain:
    """How the blocks of a stack hang together: `streams` are the outputs by number that go on as arguments by name.

    `given[i]` are the arguments of block i by name, `returned[i]` its outputs.
    """

    stack: str
    streams: Mapping[int, str]
    given: Sequence[Mapping[str, Any]]
    returned: Sequence[Any]


@torch.no_grad()
def find_chain(model: nn.Module, stack: str, call: Mapping[str, Any]) -> Chain:
    """The chain of a stack in one call.

    Raises:
        NoHandEditError: a block is not given what the block before it returns.
    """
    blocks = list(model.get_submodule(stack).children())
    given: list[dict[str, Any]] = []
    returned: list[Any] = []
    handles = []
    for block in blocks:
        handles.append(
            block.register_forward_pre_hook(
                lambda block, args, kwargs: given.append(_named(block, args, kwargs)), with_kwargs=True
            )
        )
        handles.append(block.register_forward_hook(lambda block, args, result: returned.append(result)))
    try:
        model(**call)
    finally:
        for handle in handles:
            handle.remove()
    if len(given) != len(blocks):
        raise NoHandEditError(f"{stack} is not run once a block")
    return Chain(stack, _streams_of(given, returned), given, returned)


def _named(block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name in inspect.signature(inspect.unwrap(type(block).forward)).parameters if name != "self"]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _outputs(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _streams_of(given: Sequence[Mapping[str, Any]], returned: Sequence[Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    for number, output in enumerate(_outputs(returned[0])):
        for name, value in given[1].items():
            if value is output and isinstance(value, torch.Tensor):
                found[number] = name
    for result, named in zip(returned, given[1:], strict=False):
        if not found or any(named[name] is not _outputs(result)[number] for number, name in found.items()):
            raise NoHandEditError("a block is not given what the one before it returns")
    for name in dict.fromkeys(name for named in given for name in named):
        if name not in found.values() and _follows_outputs([named.get(name) for named in given], returned):
            raise NoHandEditError(f"{name} is made of what the blocks return")
    return found


def _follows_outputs(values: Sequence[Any], returned: Sequence[Any]) -> bool:
    """Whether an argument may hang on what the blocks return: it changes from block to block, and is shaped like it."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    shapes = {output.shape for output in _outputs(returned[0]) if isinstance(output, torch.Tensor)}
    changes = len(tensors) < len(values) or any(
        one.shape != tensors[0].shape or not torch.equal(one, tensors[0]) for one in tensors
    )
    return changes and any(one.shape in shapes for one in tensors)


def run_schedule(schedule: Schedule, streams: Streams, run_block: Callable[[int, Streams], Streams]) -> Streams:
    """The streams behind a schedule, where `run_block` gives those behind one block."""

    def run_items(items: Sequence[Item], streams: Streams) -> Streams:
        for item in items:
            match item:
                case Layer(index, scale):
                    after = run_block(index, streams)
                    if scale != 1.0:
                        after = {name: streams[name] + scale * (after[name] - streams[name]) for name in after}
                    streams = after
                case Group(layers, _, loops):
                    for _ in range(loops):
                        outputs = [run_items([layer], streams) for layer in layers]
                        streams = {
                            name: torch.stack([output[name] for output in outputs]).mean(dim=0) for name in streams
                        }
                case Repetition(inner, times):
                    for _ in range(times):
                        streams = run_items(inner, streams)
                case _:
                    assert_never(item)
        return streams

    return run_items(schedule.items, streams)


@torch.no_grad()
def run_chain_by_hand(model: nn.Module, chain: Chain, schedule: Schedule, call: Mapping[str, Any]) -> Any:
    """What the model returns for a call with one of its stacks under a schedule; the model is left as it is."""
    edited = copy.deepcopy(model)
    blocks = list(edited.get_submodule(chain.stack).children())
    originals: list[Callable[..., Any]] = [block.forward for block in blocks]
    left: Streams = {}

    def run_block(index: int, streams: Streams) -> Streams:
        outputs = _outputs(originals[index](**{**chain.given[index], **streams}))
        return {name: outputs[number] for number, name in chain.streams.items()}

    def work(*args: Any, **kwargs: Any) -> Any:
        named = _named(blocks[0], args, kwargs)
        left.update(run_schedule(schedule, {name: named[name] for name in chain.streams.values()}, run_block))
        return hand_back(0)

    def hand_back(index: int) -> Any:
        returned = chain.returned[index]
        if not isinstance(returned, (tuple, list)):
            return left[chain.streams[0]]
        kept = [left[chain.streams[n]] if n in chain.streams else value for n, value in enumerate(returned)]
        return type(returned)(kept)

    blocks[0].forward = work
    for index, block in enumerate(blocks[1:], start=1):
        block.forward = lambda *args, index=index, **kwargs: hand_back(index)
    return edited(**call)
