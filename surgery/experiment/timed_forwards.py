"""The seconds that forwards of modules take, by hooks, on the device that they run on."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

Clock = Callable[[], float]


@contextmanager
def timed_forwards(
    modules: Iterable[tuple[nn.Module, list[float]]], device: torch.device, clock: Clock = time.perf_counter
) -> Iterator[None]:
    """Within it the seconds of each forward of a module go to the list beside it, once the device has done it."""
    with ExitStack() as stack:
        for module, seconds in modules:
            _time(module, seconds, device, clock, stack)
        yield


def _time(module: nn.Module, seconds: list[float], device: torch.device, clock: Clock, stack: ExitStack) -> None:
    began: list[float] = []

    def begin(module: Any, args: Any) -> None:  # noqa: ARG001  (torch's signature)
        wait_for(device)
        began.append(clock())

    def end(module: Any, args: Any, output: Any) -> None:  # noqa: ARG001  (torch's signature)
        wait_for(device)
        seconds.append(clock() - began.pop())

    stack.callback(module.register_forward_pre_hook(begin).remove)
    stack.callback(module.register_forward_hook(end).remove)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
