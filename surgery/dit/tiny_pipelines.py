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
PIPELINE_SIZE = 16
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
    """The folder of a `ClassDiTPipeline` that draws small pictures of a cat, a dog or a wild animal; untrained.

    They are 16 x 16, which all metrics of pictures take.
    """
    transformer = tiny_dit(conditioning, seed=seed, sample_size=PIPELINE_SIZE)
    pipe = ClassDiTPipeline(transformer, EulerDiscreteScheduler(), id2label=LABELS)
    pipe.save_pretrained(folder)
    return Path(folder)
