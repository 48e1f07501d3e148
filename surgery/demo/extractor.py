"""The bundled feature extractor: 64 x 64 pictures -> 192 features, by a residual network (see judges/MODEL_CARD.md)."""

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from surgery.demo.judge_files import EXTRACTOR_FILE, check_digest
from surgery.demo.pictures import PICTURE_PX
from surgery.errors import InputError

NUM_FEATURES = 192
WIDTHS = (24, 48, 96, 192)


EXTRACT_BATCH = 128


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; `stride` 2 halves the picture."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
            nn.BatchNorm2d(channels_out),
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(N, channels_in, H, W) -> (N, channels_out, H / stride, W / stride)."""
        return torch.relu(self.body(states) + self.shortcut(states))


class EmojiExtractor(nn.Module):
    """uint8 pictures (N, 3, 64, 64) -> features (N, 192), float32, of either sign."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(
            Residual(WIDTHS[0], WIDTHS[0], 1),
            *(Residual(before, after, 2) for before, after in pairwise(WIDTHS)),
        )
        self.out = nn.Linear(WIDTHS[-1], NUM_FEATURES)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Raises InputError where the pictures are of another dtype or shape: nothing is resized in silence."""
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (3, PICTURE_PX, PICTURE_PX):
            raise InputError(
                f"the bundled extractor reads uint8 pictures of shape (N, 3, {PICTURE_PX}, {PICTURE_PX}), "
                f"not {str(pictures.dtype).removeprefix('torch.')} of {tuple(pictures.shape)}"
            )
        return self.features_of(pictures.to(self.out.weight.dtype) / 127.5 - 1).float()

    def features_of(self, scaled: torch.Tensor) -> torch.Tensor:
        """The same for pictures in [-1, 1], as training has them."""
        states = self.blocks(self.stem(scaled))  # N x 192 x 4 x 4
        features: torch.Tensor = self.out(states.mean((2, 3)))
        return features


def load_extractor() -> EmojiExtractor:
    """The trained extractor, in float32 and in eval mode; raises InputError where its file is not the recorded one."""
    check_digest(EXTRACTOR_FILE)
    return read_extractor(EXTRACTOR_FILE)


def read_extractor(file: Path) -> EmojiExtractor:
    """The same from any file of its weights."""
    extractor = EmojiExtractor()
    extractor.load_state_dict(load_file(file))
    return extractor.eval().requires_grad_(False)


@torch.no_grad()
def extract_features(extractor: EmojiExtractor, pictures: torch.Tensor) -> torch.Tensor:
    """uint8 pictures (N, 3, 64, 64) -> features (N, 192), in batches of a fixed size."""
    return torch.cat([extractor(batch) for batch in pictures.split(EXTRACT_BATCH)])
