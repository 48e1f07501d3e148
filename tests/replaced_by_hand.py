"""Components replaced by hand: a forward hook that puts something else in the place of what a component returns."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from surgery.anatomy.anatomy import Anatomy, Component, Stack
from surgery.graph.variant import build_variant
from surgery.plan.lower import lower_spec
from surgery.plan.plan import Plan, ReplacedComponent
from surgery.spec.load import read_spec
from surgery.tracing.memo import tensors_in

KINDS = ("zero", "input", "channel_mean", "mean")


@dataclass(frozen=True)
class Replaced:
    """A component of one block, and what is put in its place."""

    stack: str
    index: int
    component: Component
    kind: str

    @property
    def path(self) -> str:
        """Its dotted name."""
        return f"{self.stack}.{self.index}.{self.component.name}"


def offered_components(stack: Stack) -> list[tuple[int, Component]]:
    """The components of a stack that can be replaced, each with the number of its blocks' kind."""
    return [(number, found) for number, kind in enumerate(stack.kinds) for found in kind.components if found.outputs]


def count_equal(model: nn.Module, anatomy: Anatomy, stack: Stack, call: Mapping[str, Any]) -> tuple[int, int]:
    """How many components are replaced as by hand, to the bit, and of how many; some are replaced at once."""
    rounds = list(_rounds(stack))
    equal = sum(len(replaced) for replaced in rounds if _is_equal(model, anatomy, replaced, call))
    return equal, sum(map(len, rounds))


def _rounds(stack: Stack) -> Iterator[list[Replaced]]:
    """All components that are offered, in turn: of each block one at a time, and replaced in another way each."""
    waiting = [(number, component, at) for at, (number, component) in enumerate(offered_components(stack))]
    while waiting:
        free = dict(enumerate(stack.kind_of))
        chosen: list[Replaced] = []
        for item in list(waiting):
            number, component, at = item
            index = next((block for block, kind in free.items() if kind == number), None)
            if index is not None:
                free.pop(index)
                waiting.remove(item)
                chosen.append(Replaced(stack.name, index, component, _kind(component, at)))
        yield chosen


def _kind(component: Component, number: int) -> str:
    kind = KINDS[number % len(KINDS)]
    is_even = all(output.in_channels == output.out_channels for output in component.outputs)
    return "zero" if kind == "input" and not is_even else kind


@torch.no_grad()
def _is_equal(model: nn.Module, anatomy: Anatomy, replaced: Sequence[Replaced], call: Mapping[str, Any]) -> bool:
    means = {item.path: _means(item) for item in replaced if item.kind == "mean"}
    variant = build_variant(model, _plan(replaced, anatomy), anatomy, means)
    got = tensors_in(variant(**call))
    handles = [
        model.get_submodule(item.path).register_forward_hook(_Hook(item, means.get(item.path, {})), with_kwargs=True)
        for item in replaced
    ]
    try:
        expected = tensors_in(model(**call))
    finally:
        for handle in handles:
            handle.remove()
    return all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def _means(item: Replaced) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(item.index)
    return {output.stream: torch.randn(output.out_channels, generator=generator) for output in item.component.outputs}


def _plan(replaced: Sequence[Replaced], anatomy: Anatomy) -> Plan:
    """A plan with these replacements alone."""
    lines = [f'  - replace: {{component: "{r.stack}[{r.index}].{r.component.name}", with: zero}}' for r in replaced]
    zeros = lower_spec(read_spec("surgery: v1\noperations:\n" + "\n".join(lines)), anatomy)
    made = [ReplacedComponent(item.stack, item.index, item.component.name, item.kind) for item in replaced]
    return dataclasses.replace(zeros, replacements=tuple(made))


class _Hook:
    def __init__(self, item: Replaced, means: Mapping[str, torch.Tensor]) -> None:
        self.item, self.means = item, means

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        named = {
            **dict(zip(inspect.signature(type(module).forward).parameters, (module, *args), strict=False)),
            **kwargs,
        }
        values = output if isinstance(output, (tuple, list)) else (output,)
        known = self.item.component.outputs
        made = tuple(
            self.put(named[one.stream], value, one.stream, _channels_of(module, value))
            for one, value in zip(known, values, strict=True)
        )
        return made if isinstance(output, (tuple, list)) else made[0]

    def put(self, given: torch.Tensor, output: torch.Tensor, stream: str, channels: int) -> torch.Tensor:
        match self.item.kind:
            case "zero":
                return torch.zeros_like(output, memory_format=torch.contiguous_format)  # convolutions round by layout
            case "input":
                return given
            case "channel_mean":
                return given.mean(channels, keepdim=True).expand(output.shape).contiguous()
        return self.means[stream].expand(output.movedim(channels, -1).shape).movedim(-1, channels).contiguous()


def _channels_of(module: Any, output: torch.Tensor) -> int:
    """Where the channels of an output are: pictures and videos are what convolutions give."""
    is_convolution = isinstance(module, (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d))
    return 1 if is_convolution or output.ndim > 3 else -1
