"""Pictures, and a small extractor whose weights come from a seed: what the tests of metrics measure with."""

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from surgery.metrics.extractors import Extractor, module_extractor

SIDE = 32


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Nothing that measures may fetch anything: a connection is an error that no loader takes for a missing file."""

    def connect(self, address):
        raise AssertionError(f"a connection to {address} was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)


class SmallNetwork(nn.Module):
    """uint8 (N, 3, H, W) -> (N, 24): filters of three sizes, rectified and averaged."""

    def __init__(self, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.filters = nn.ParameterList(
            [nn.Parameter(torch.randn(8, 3, size, size, generator=generator) / size) for size in (1, 3, 7)]
        )

    def forward(self, pictures):
        scaled = pictures.float() / 127.5 - 1
        return torch.cat([torch.relu(nn.functional.conv2d(scaled, own)).mean((2, 3)) for own in self.filters], 1)


@pytest.fixture
def make_extractor():
    """A function: a seed and a resize protocol -> an extractor."""

    def make(seed=0, *, resize="none") -> Extractor:
        return module_extractor(SmallNetwork(seed), name=f"small-{seed}", resize=resize, channels=24)

    return make


@pytest.fixture
def extractor(make_extractor):
    return make_extractor()


@pytest.fixture
def make_pixels():
    """A function: how many, and a seed -> smooth coloured pictures, uint8 (N, 3, SIDE, SIDE)."""

    def make(num=24, *, seed=0, side=SIDE):
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(num, 3, 5, 5, generator=generator)
        smooth = nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)
        return (smooth * 255).round().to(torch.uint8)

    return make


@pytest.fixture
def save_folder(tmp_path):
    """A function: pixels, a folder's name, a suffix -> a folder of files."""

    def save(pixels, name="pictures", *, suffix=".png", **options) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for number, picture in enumerate(pixels):
            image = Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))
            image.save(folder / f"{number:04d}{suffix}", **options)
        return folder

    return save
