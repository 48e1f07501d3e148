"""Trained parts -> the pipeline folder that ships with the package, in float16, with what it is made of beside."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PixArtAlphaPipeline
from torch import nn

from surgery.anatomy.as_json import anatomy_to_json
from surgery.anatomy.sources import build_anatomy, find_source
from surgery.bundled import demo_anatomy
from surgery.demo.training.architecture import build_scheduler, build_tokenizer

TOKENIZER_CLASS = "PreTrainedTokenizerFast"  # the name that transformers 4 and 5 both know


def assemble_pipeline(
    autoencoder: AutoencoderKL, denoiser: nn.Module, captions: list[str], *, latent_scale: float
) -> PixArtAlphaPipeline:
    """The stock pipeline around the trained parts; `latent_scale` is the standard deviation of the latents."""
    autoencoder.register_to_config(scaling_factor=1.0 / latent_scale)
    pipe = PixArtAlphaPipeline(
        tokenizer=build_tokenizer(captions),
        text_encoder=denoiser.text_encoder,
        vae=autoencoder,
        transformer=denoiser.transformer,
        scheduler=build_scheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_pipeline(pipe: PixArtAlphaPipeline, folder: Path) -> None:
    """Write all weights in float16; raises ValueError where one is out of its range."""
    for name, value in iter_weights(pipe).items():
        if not torch.isfinite(value.half()).all():
            raise ValueError(f"{name} does not fit into float16")
    pipe.to(torch.float16).save_pretrained(folder)
    config = folder / "text_encoder" / "config.json"  # transformers would load it in the dtype that it names
    config.write_text(config.read_text().replace('"float16"', '"float32"'))
    for file in (folder / "model_index.json", folder / "tokenizer" / "tokenizer_config.json"):
        file.write_text(file.read_text().replace('"TokenizersBackend"', f'"{TOKENIZER_CLASS}"'))
    anatomy = build_anatomy(find_source(str(folder)))
    (folder / demo_anatomy().name).write_text(json.dumps(anatomy_to_json(anatomy), indent=1) + "\n")


def iter_weights(pipe: PixArtAlphaPipeline) -> Mapping[str, torch.Tensor]:
    """All parameters of a pipeline by component and name."""
    return {
        f"{part}.{name}": value
        for part, module in pipe.components.items()
        if isinstance(module, nn.Module)
        for name, value in module.named_parameters()
    }
