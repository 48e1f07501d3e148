"""What a transformer gave in a call, and what its pipeline made of that: so that it need not run for another output."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from surgery.tracing.memo import tensors_in, versions_of


@dataclass(frozen=True)
class TransformerCall:
    """A call of a transformer; `versions` say how often each tensor of its output was changed by then."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    versions: list[int]

    def find_view(self, prediction: torch.Tensor) -> int | None:
        """The number of the tensor of the output that a prediction shows, unchanged; None of anything else."""
        memory = prediction.untyped_storage().data_ptr()
        for number, tensor in enumerate(tensors_in(self.output)):
            if tensor.untyped_storage().data_ptr() == memory and tensor.dtype == prediction.dtype:
                return number if versions_of(self.output) == self.versions else None
        return None


def note_calls(calls: list[TransformerCall]) -> Callable[..., None]:
    """A hook that keeps what the transformer is given, and what it gives."""

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append(TransformerCall(module, args, kwargs, output, versions_of(output)))

    return note


@dataclass(frozen=True)
class NoisedCall:
    """The call of a transformer at a noised batch, and what its pipeline handed its scheduler.

    `view` says of which tensor of the call's output the prediction is a view; None where it is something else made of
    them, or where the transformer was called more than once.
    """

    call: TransformerCall
    prediction: torch.Tensor
    view: int | None

    def prediction_of(self, output: Any) -> torch.Tensor | None:
        """What the pipeline would have made of another output; None where that takes the pipeline."""
        if self.view is None:
            return None
        own, other = tensors_in(self.call.output)[self.view], tensors_in(output)[self.view]
        if (own.shape, own.stride(), own.dtype) != (other.shape, other.stride(), other.dtype):
            return None
        offset = other.storage_offset() + self.prediction.storage_offset() - own.storage_offset()
        return other.as_strided(self.prediction.shape, self.prediction.stride(), offset)
