"""What a transformer gave in a call, and what its pipeline made of that: so that it need not run for another output."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from surgery.tracing.memo import tensors_in, versions_of


@dataclass(frozen=True)
class TransformerCall:
    """A call of a transformer; `versions` say how often each tensor of its output was changed by then.

    `keeps_inputs` says that the tensors that it was given are still what they were.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    versions: list[int]
    keeps_inputs: bool

    def find_view(self, prediction: torch.Tensor) -> int | None:
        """The number of the tensor of the output that a prediction shows, unchanged; None of anything else."""
        memory = prediction.untyped_storage().data_ptr()
        for number, tensor in enumerate(tensors_in(self.output)):
            if tensor.untyped_storage().data_ptr() == memory and tensor.dtype == prediction.dtype:
                return number if versions_of(self.output) == self.versions else None
        return None


class CallNotes:
    """Hooks of a transformer that keep what it is given, and what it gives."""

    def __init__(self) -> None:
        self.calls: list[TransformerCall] = []
        self.given: list[int] = []

    def before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002  (torch's)
        """Of the pre-forward kind, behind all others."""
        self.given = versions_of([args, kwargs])

    def after(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Of the forward kind."""
        keeps_inputs = versions_of([args, kwargs]) == self.given
        self.calls.append(TransformerCall(module, args, kwargs, output, versions_of(output), keeps_inputs))


@dataclass(frozen=True)
class NoisedCall:
    """The call of a transformer at a noised batch, and what its pipeline handed its scheduler.

    `view` says of which tensor of the call's output the prediction is a view; None where it is something else made of
    them. `is_alone` says that the prediction comes of this one call, whose inputs are still what they were: only then
    may another output take the place of its own.
    """

    call: TransformerCall
    prediction: torch.Tensor
    view: int | None
    is_alone: bool

    def prediction_of(self, output: Any) -> torch.Tensor | None:
        """What the pipeline would have made of another output; None where that takes the pipeline."""
        if self.view is None:
            return None
        own, other = tensors_in(self.call.output)[self.view], tensors_in(output)[self.view]
        if (own.shape, own.stride(), own.dtype) != (other.shape, other.stride(), other.dtype):
            return None
        offset = other.storage_offset() + self.prediction.storage_offset() - own.storage_offset()
        return other.as_strided(self.prediction.shape, self.prediction.stride(), offset)
