"""Rows tried on a model: forwards on the meta device, without weights, and how far each came before it failed.

Of each stack the first block of a kind is run, and the last of all: what a forward takes does not hang on how many
there are.
"""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from surgery.calls.call_rows import Maker, Row, Sizes, make_arguments
from surgery.calls.known_values import known_values
from surgery.torch_internals import twin_with_own_children
from surgery.tracing.clone import bare_clone, without_memory
from surgery.tracing.steps import find_stack_names

LAST_SECONDS = 24.0  # of this thread, within which the last forward must end
MAX_OPERATIONS = 500_000  # of one forward
OPERATIONS_A_LOOK = 16  # after which the clock is looked at: where that is a call of the system, it takes long
DONE = MAX_OPERATIONS + 1  # how far a forward came that ran to its end


class Trials:
    """Forwards of a model at some free sizes; `failure` says why the last one failed."""

    def __init__(self, model: nn.Module, sizes: Mapping[str, int], *, is_cut: bool = True) -> None:
        cut = with_few_blocks(model) if is_cut else model
        self.model = bare_clone(cut, lambda tensor: without_memory(tensor, torch.float32))
        self.sizes = sizes
        self.config: Mapping[str, Any] = dict(getattr(model, "config"))  # noqa: B009  (typed as a tensor)
        self.weight = next(value for value in self.model.parameters() if value.is_floating_point())
        self.deadline = time.thread_time() + LAST_SECONDS
        self.failure = ""

    def try_row(self, row: Row) -> int:
        """How many operations the forward does with a row before it fails; DONE where it does not."""
        counter = _Counter(self.deadline)
        try:
            with torch.no_grad(), _quiet(), known_values():
                kwargs = make_arguments(row, Maker(Sizes(self.sizes, self.config), self.weight, None))
                with counter:
                    self.model(**kwargs)
        except Exception as error:  # forwards raise anything over arguments that make no sense
            self.failure = f"{type(error).__name__}: {error}".splitlines()[0]
            return counter.num_operations
        return DONE


def with_few_blocks(model: nn.Module) -> nn.Module:
    """The model with the last block of each of its stacks and the first of each kind: of one class and shapes.

    It shares all else with the original. A UNet, each of whose blocks has channels of its own, keeps them all.
    """
    cut = twin_with_own_children(model)
    for name in find_stack_names(model):
        parent = cut
        *path, last = name.split(".")
        for part in path:
            parent.add_module(part, twin_with_own_children(parent.get_submodule(part)))
            parent = parent.get_submodule(part)
        blocks = list(model.get_submodule(name).children())
        kinds = {_kind_of(block): number for number, block in reversed(list(enumerate(blocks)))}
        kept = sorted({*kinds.values(), len(blocks) - 1})
        if len(kept) < len(blocks):
            parent.add_module(last, nn.ModuleList(blocks[number] for number in kept))
    return cut


def _kind_of(block: nn.Module) -> tuple[Any, ...]:
    return type(block), tuple((name, value.shape) for name, value in block.state_dict().items())


class _Counter(TorchFunctionMode):
    """Counts operations; more than there are in a forward, or out of time, are an error."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.deadline = deadline
        self.num_operations = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_operations += 1
        looks_at_the_clock = self.num_operations % OPERATIONS_A_LOOK == 0
        if self.num_operations > MAX_OPERATIONS or (looks_at_the_clock and time.thread_time() > self.deadline):
            raise TimeoutError("the forward takes too long")
        return func(*args, **(kwargs or {}))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what a forward says of arguments that it does not like."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
