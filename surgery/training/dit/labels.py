"""Labels of pictures -> what the model is given of them: numbers of classes, or texts that were encoded once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Labels:
    """The names of labels by their numbers; `encoded` (labels + 1, channels) where they are texts, the empty one last.

    The number behind the last stands for no label.
    """

    names: Sequence[str]
    encoded: torch.Tensor | None = None

    @property
    def none(self) -> int:
        """The number of no label."""
        return len(self.names)

    def arguments(self, numbers: torch.Tensor, device: torch.device) -> Mapping[str, torch.Tensor]:
        """What the model is given for rows with these labels (batch,)."""
        if self.encoded is None:
            return {"class_labels": numbers.to(device)}
        return {"pooled_projections": self.encoded[numbers].to(device)}
