"""How long each kind of block takes in a forward: a measured table, for budgets of latency."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from surgery.anatomy.anatomy import Anatomy, BlockKind, Stack
from surgery.experiment.bench import Bench
from surgery.experiment.search.budget import Budget, Gauge, block_flops
from surgery.experiment.search.store import Shelf, Store
from surgery.experiment.timed_forwards import timed_forwards
from surgery.pipelines.draw import draw_pictures
from surgery.plan.cost import course_of

REPEATS, WARM_UP = 2, 1  # pictures of a batch, each of many forwards
NS_A_SECOND = 1e9
WHOLE = ""  # the component that is the block itself


@dataclass(frozen=True)
class Latency:
    """Nanoseconds, the median over blocks of a kind and forwards: by stack, kind and component; of a whole forward."""

    forward_ns: float
    parts_ns: Mapping[tuple[str, int, str], float]

    def timed(self, anatomy: Anatomy) -> Anatomy:
        """The anatomy with nanoseconds for FLOPs, so that what a plan saves is counted by the one rule for both."""
        return replace(anatomy, stacks=tuple(self._stack(stack) for stack in anatomy.stacks))

    def _stack(self, stack: Stack) -> Stack:
        kinds = tuple(self._kind(stack.name, number, kind) for number, kind in enumerate(stack.kinds))
        return replace(stack, kinds=kinds)

    def _kind(self, stack: str, number: int, kind: BlockKind) -> BlockKind:
        def of(name: str) -> int:
            return round(self.parts_ns.get((stack, number, name), 0.0))

        parts = tuple(replace(component, flops=of(component.name)) for component in kind.components)
        return replace(kind, flops=of(WHOLE), components=parts)


def open_gauge(
    budget: Budget, anatomy: Anatomy, bench: Bench, store: Store, recipe: Mapping[str, Any], shares: Sequence[float]
) -> Gauge:
    """What tells how much of the budget's unit a variant has, on a sampler's steps at these shares of the noise range;
    of a budget of latency with a table that is measured once, while the model as it is draws its first batch.
    """
    course = course_of(shares)
    if budget.kind != "latency":
        return Gauge(budget.kind, anatomy, course)
    request, pipe = bench.run.request, bench.run.pipe
    captions = bench.prompts[: request.batch_size]
    shelf = store.shelf({**recipe, "latency": list(captions), "threads": torch.get_num_threads()})

    def forward() -> None:
        draw_pictures(pipe, captions, seed=request.seed, batch_size=len(captions), call=bench.run.call)

    found = read_latency(shelf, pipe.transformer, anatomy, forward)
    timed = found.timed(anatomy)
    return Gauge(budget.kind, anatomy, course, timed, max(0.0, (found.forward_ns - block_flops(timed)) / 1e6))


def read_latency(shelf: Shelf, model: Any, anatomy: Anatomy, forward: Callable[[], Any]) -> Latency:
    """The table of a shelf, or one that is measured by running `forward`, which calls the model, and put there."""
    if "forward" not in shelf.numbers:
        shelf.add(_measure(model, anatomy, forward))
    numbers = {name: values[0] for name, values in shelf.numbers.items()}
    whole = numbers.pop("forward")
    return Latency(whole, {_place_of(name): value for name, value in numbers.items()})


def _place_of(name: str) -> tuple[str, int, str]:
    stack, kind, component = name.split("|")
    return stack, int(kind), component


def _measure(model: Any, anatomy: Anatomy, forward: Callable[[], Any]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(WARM_UP):
        forward()
    with timed_forwards([(module, seconds[name]) for name, module in _timed_modules(model, anatomy)], model.device):
        for _ in range(REPEATS):
            forward()
    return {name: [NS_A_SECOND * statistics.median(each)] for name, each in seconds.items() if each}


def _timed_modules(model: nn.Module, anatomy: Anatomy) -> list[tuple[str, nn.Module]]:
    """The model, its blocks, and their components, each under the name of its kind."""
    found: list[tuple[str, nn.Module]] = [("forward", model)]
    for stack in anatomy.stacks:
        blocks = model.get_submodule(stack.name)
        for index in range(stack.num_blocks):
            block = blocks.get_submodule(str(index))
            found.append((f"{stack.name}|{stack.kind_of[index]}|{WHOLE}", block))
            found += [
                (f"{stack.name}|{stack.kind_of[index]}|{component.name}", block.get_submodule(component.name))
                for component in stack.kind(index).components
            ]
    return found
