"""A small classifier of digits: what the pictures of the comparison are judged by.

`DigitJudge` is an extractor of torch-fidelity's kind (`--extractor digit_judge:DigitJudge`, its file in
`--extractor-weights`). Its features are the 32 numbers that the ten classes are read from. `train_judge` learns it, on
four fifths of the digits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

SIDE_PX, FEATURES, CLASSES = 8, 32, 10
FEATURE_NAME = "digit-features"
STEPS, BATCH, LEARNING_RATE = 600, 64, 2e-3
HELD_OUT = 5  # every fifth digit measures
NOISE = 0.1  # on a digit, as it is learnt: drawn digits are not clean


class Classifier(nn.Module):
    """Grey pictures (N, 1, 8, 8) of 0 to 1 -> 32 features, and from these the logits of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.features = nn.Linear(32 * (SIDE_PX // 2) ** 2, FEATURES)
        self.classes = nn.Linear(FEATURES, CLASSES)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """The features, before their activation."""
        seen = F.max_pool2d(F.relu(self.second(F.relu(self.first(pictures)))), 2)
        return self.features(seen.flatten(1))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(N, 32) -> (N, 10)."""
        return self.classes(F.relu(features))


class DigitJudge(FeatureExtractorBase):  # type: ignore[misc]  # torch-fidelity has no types
    """One kind of feature, of pictures of any size, which are brought to 8 x 8 and to grey."""

    def __init__(
        self,
        name: str,
        features_list: Sequence[str],
        feature_extractor_weights_path: str | None = None,
        **_: object,  # torch-fidelity hands over all options of its caller
    ) -> None:
        super().__init__(name, features_list)
        self.classifier = load_classifier(Path(str(feature_extractor_weights_path)))

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """uint8 (N, 3, H, W) -> float32 (N, 32)."""
        grey = pictures.float().mean(dim=1, keepdim=True) / 255
        if grey.shape[-2:] != (SIDE_PX, SIDE_PX):
            grey = F.interpolate(grey, (SIDE_PX, SIDE_PX), mode="area")
        return (self.classifier(grey),)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """The one kind of feature."""
        return (FEATURE_NAME,)

    @staticmethod
    def get_default_feature_layer_for_metric(_metric: str) -> str:
        """The same for each metric."""
        return FEATURE_NAME


def load_classifier(weights: Path) -> Classifier:
    """The classifier of a file of weights."""
    classifier = Classifier()
    classifier.load_state_dict(load_file(weights))
    return classifier.eval().requires_grad_(False)


def train_judge(pictures: torch.Tensor, labels: torch.Tensor, weights: Path) -> float:
    """Learn the classes of digits (N, 1, 8, 8) of 0 to 1, write the weights, and tell the share of held-out ones that
    are told right.
    """
    is_held_out = torch.arange(len(labels)) % HELD_OUT == 0
    classifier = _learn(pictures[~is_held_out], labels[~is_held_out])
    save_file(classifier.state_dict(), weights)
    found = load_classifier(weights)
    right = found.logits(found(pictures[is_held_out])).argmax(1) == labels[is_held_out]
    return float(right.float().mean())


def _learn(pictures: torch.Tensor, labels: torch.Tensor) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = Classifier()
        optimizer: Any = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            rows = torch.randint(len(labels), (BATCH,))
            noisy = pictures[rows] + NOISE * torch.randn(BATCH, 1, SIDE_PX, SIDE_PX)
            loss = F.cross_entropy(classifier.logits(classifier(noisy)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    return classifier
