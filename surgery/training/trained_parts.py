"""Which parameters of a pruned model are trained: all, those of norms, or those of the blocks beside a gap."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from surgery.errors import InputError
from surgery.plan.plan import Plan
from surgery.plan.schedule import Layer, unroll

if TYPE_CHECKING:
    from torch import nn

Part = Literal["all", "lora", "norms", "neighbours"]
PARTS: tuple[Part, ...] = ("all", "lora", "norms", "neighbours")


def choose_trained_(model: "nn.Module", part: Part, plan: Plan) -> None:
    """Let a part of a model, and nothing else of it, take gradients; of `lora` nothing does, until adapters are put in.

    Raises:
        InputError: there is nothing of this kind in the model.
    """
    model.requires_grad_(False)
    match part:
        case "all":
            model.requires_grad_(True)
        case "lora":
            return
        case "norms":
            for parameter in norm_parameters(model, plan):
                parameter.requires_grad_(True)
        case "neighbours":
            for stack, place in neighbours(plan):
                model.get_submodule(f"{stack}.{place}").requires_grad_(True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"there are no {part} to train in this {type(model).__name__}; write --train all")


def norm_parameters(model: "nn.Module", plan: Plan) -> "Iterator[nn.Parameter]":
    """All parameters within norms, adaptive ones included, and those that a block holds itself: tables of shifts and
    scales of its norms.
    """
    for module in model.modules():
        if "Norm" in type(module).__name__:
            yield from module.parameters()
    for schedule in plan.schedules:
        for block in model.get_submodule(schedule.stack).children():
            yield from block.parameters(recurse=False)


def neighbours(plan: Plan) -> list[tuple[str, int]]:
    """The stack and the place, in the pruned model, of each block that had another neighbour in the original."""
    found = []
    for schedule in plan.schedules:
        runs = [layer.index for layer in unroll(schedule.items) if isinstance(layer, Layer)]
        beside = [-1, *runs, schedule.num_blocks]
        for place, own in enumerate(runs, 1):
            if beside[place - 1] != own - 1 or beside[place + 1] != own + 1:
                found.append((schedule.stack, place - 1))
    return found
