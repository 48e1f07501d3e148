"""A conditioning -> the folder of a pipeline that has it, tiny, with random weights that make every layer matter."""

from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler

from surgery.dit.model import DiT
from surgery.dit.pipelines import ClassDiTPipeline

TINY_SIZES = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 3,
    "hidden_size": 16,
    "num_layers": 4,
    "num_attention_heads": 2,
}
LABELS = {"0": "cat", "1": "dog", "2": "wild"}
WEIGHT_STD = 0.05  # of what is added to every weight: no layer is at zero, where blocks start


def tiny_dit(conditioning: str, *, seed: int = 0, **changes: Any) -> DiT:
    """A DiT of four blocks and 16 channels in evaluation mode, of three classes; `changes` are fields of its config."""
    torch.manual_seed(seed)
    model = DiT(**{**TINY_SIZES, "num_classes": len(LABELS), "conditioning": conditioning, **changes}).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * WEIGHT_STD)
    return model


def save_tiny_pipeline(conditioning: str, folder: str | Path, *, seed: int = 0) -> Path:
    """The folder of a `ClassDiTPipeline` that draws 8 x 8 pictures of a cat, a dog or a wild animal, from noise alone."""
    scheduler = EulerDiscreteScheduler()
    pipe = ClassDiTPipeline(tiny_dit(conditioning, seed=seed), scheduler, id2label=LABELS)
    pipe.save_pretrained(folder)
    return Path(folder)
