"""What a source loads to: no weights but safetensors, of any component."""

import os
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel, EulerDiscreteScheduler

from surgery.anatomy.sources import find_source
from surgery.errors import InputError
from surgery.pipelines.pretrained import load_pretrained
from surgery.testing import build_tiny_model


class Marking:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def pipeline(tmp_path):
    """The folder of a pipeline without text."""
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=2, latent_channels=4, sample_size=8)
    transformer = build_tiny_model("dit")
    assert isinstance(transformer, DiTTransformer2DModel)
    folder = tmp_path / "pipeline"
    DiTPipeline(transformer, vae, EulerDiscreteScheduler()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("part", ["vae", "transformer"])
def test_a_pickle_is_refused_and_never_loaded(pipeline, tmp_path, part):
    """Of a component, too, that the surgery does not touch."""
    load_pretrained(find_source(str(pipeline)), device="cpu")
    (pipeline / part / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"a": Marking(tmp_path / "ran")}, pipeline / part / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="pickles are never loaded here: load it with diffusers, and save_pretrained"):
        load_pretrained(find_source(str(pipeline)), device="cpu")
    assert not (tmp_path / "ran").exists()
