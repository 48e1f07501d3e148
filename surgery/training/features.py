"""What blocks give -> how far a student's are from its teacher's, without the few extreme values in them.

A few activations of a transformer are thousands of times larger than all others and hardly depend on its input
("massive activations", Sun et al., arXiv 2402.17762); a mean square would be of them alone. Fang et al. (TinyFusion,
arXiv 2412.01199) found that a shallow student of a DiT learns better from the features of a teacher where the loss
leaves the extreme ones out. Here that is what lies further than a few standard deviations from the mean, by the
teacher's values, tensor by tensor.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from surgery.errors import RefusedError
from surgery.plan.plan import Plan
from surgery.plan.schedule import Layer, unroll

Streams = dict[int, torch.Tensor]  # what a block gives, by the place in its output


@dataclass(frozen=True)
class Match:
    """A block of the student by its place now, and the teacher's by its index in the original: they are one block."""

    stack: str
    place: int
    original: int


def match_blocks(plan: Plan) -> tuple[Match, ...]:
    """The blocks of a checkpoint that survived; of one that runs several times, its last run.

    Raises:
        RefusedError: blocks run in another order than in the original, so that their ends are at other depths.
    """
    found = []
    for schedule in plan.schedules:
        runs = [layer.index for layer in unroll(schedule.items) if isinstance(layer, Layer)]
        last = {original: place for place, original in enumerate(runs)}
        if list(last) != sorted(last) or list(last.values()) != sorted(last.values()):
            raise RefusedError(
                f"the layers of {schedule.stack} run in another order than in the original, so that what they give "
                "can't be matched; leave the feature loss out (--features 0)"
            )
        found += [Match(schedule.stack, place, original) for original, place in last.items()]
    return tuple(found)


@contextmanager
def outputs_of(blocks: Sequence[nn.Module]) -> Iterator[dict[int, Streams]]:
    """Within it, what each of the blocks gave last, by its number among them."""
    found: dict[int, Streams] = {}

    def keep(number: int, _block: nn.Module, _args: Any, output: Any) -> None:
        found[number] = streams_of(output)

    handles = [block.register_forward_hook(partial(keep, number)) for number, block in enumerate(blocks)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def streams_of(output: Any) -> Streams:
    """The tensors of a block's output, by their places in it."""
    items = output if isinstance(output, (tuple, list)) else (output,)
    return {
        place: value
        for place, value in enumerate(items)
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }


def feature_loss(found: Mapping[int, Streams], expected: Mapping[int, Streams], sigmas: float | None) -> torch.Tensor:
    """The mean over blocks and streams of |s - t|^2 / |t|^2, over the values that are not extreme."""
    errors = [
        masked_error(found[number][place], value, sigmas)
        for number, streams in expected.items()
        for place, value in streams.items()
        if place in found[number] and found[number][place].shape == value.shape
    ]
    return torch.stack(errors).mean()


def masked_error(found: torch.Tensor, expected: torch.Tensor, sigmas: float | None) -> torch.Tensor:
    """|found - expected|^2 / |expected|^2 over the values of `expected` within so many deviations of its mean."""
    found, expected = found.float(), expected.float()
    kept = usual_values(expected, sigmas)
    size = (expected.square() * kept).sum().clamp(min=torch.finfo(torch.float32).tiny)
    return ((found - expected).square() * kept).sum() / size


def usual_values(values: torch.Tensor, sigmas: float | None) -> torch.Tensor:
    """Where values are not extreme; everywhere for `sigmas` None."""
    if sigmas is None:
        return torch.ones_like(values, dtype=torch.bool)
    return (values - values.mean()).abs() <= sigmas * values.std()
