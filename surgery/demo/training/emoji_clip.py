"""The bundled CLIP: a small ResNet and a small text transformer in open_clip's format (see judges/MODEL_CARD.md)."""

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP, create_model_and_transforms, get_tokenizer
from PIL import Image
from safetensors.torch import save_file

from surgery.demo.judge_files import CLIP_FOLDER, check_digest
from surgery.demo.pictures import PICTURE_PX
from surgery.demo.training.architecture import MAX_CAPTION_TOKENS, build_tokenizer
from surgery.demo.training.assemble import TOKENIZER_CLASS

WEIGHTS_NAME = "open_clip_model.safetensors"
CONFIG_NAME = "open_clip_config.json"
TOKENIZER_NAMES = ("tokenizer.json", "tokenizer_config.json")
CHANNEL_MEAN = CHANNEL_STD = (0.5, 0.5, 0.5)


def model_config(tokenizer: Any) -> dict[str, Any]:
    """open_clip's `model_cfg`; the words are those of the tokenizer, which lies beside the weights."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": PICTURE_PX, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
        "text_cfg": {
            "context_length": MAX_CAPTION_TOKENS,
            "vocab_size": len(tokenizer),
            "width": 128,
            "heads": 4,
            "layers": 2,
            "hf_tokenizer_name": "emoji-words",  # any name: open_clip then reads the tokenizer of the folder
            "pool_type": "eos",
            "eos_id": tokenizer.eos_token_id,
            "pad_id": tokenizer.pad_token_id,
        },
    }


def build_clip(captions: Sequence[str]) -> tuple[CLIP, Any]:
    """The untrained model and its tokenizer, which knows the words of the captions."""
    tokenizer = build_tokenizer(captions)
    return CLIP(**deepcopy(model_config(tokenizer))), tokenizer


def save_clip(model: CLIP, tokenizer: Any, folder: Path) -> None:
    """Write what `local-dir:FOLDER` reads: config, preprocessing, tokenizer, and weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocessing = {"mean": CHANNEL_MEAN, "std": CHANNEL_STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_config(tokenizer), "preprocess_cfg": preprocessing}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")
    save_file(to_float16(model.state_dict()), folder / WEIGHTS_NAME, metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(file.read_text().replace('"TokenizersBackend"', f'"{TOKENIZER_CLASS}"'))


def to_float16(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every tensor of floats in float16; raises ValueError where one does not fit."""
    halves = {
        name: (value.half() if value.is_floating_point() else value).contiguous() for name, value in weights.items()
    }
    for name, value in halves.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} does not fit into float16")
    return halves


def load_clip() -> tuple[CLIP, Any, Any]:
    """The trained model, its preprocessing of a PIL picture, and its tokenizer, as open_clip restores them.

    Raises:
        InputError: a file of the folder is not the recorded one.
    """
    for name in (CONFIG_NAME, WEIGHTS_NAME, *TOKENIZER_NAMES):
        check_digest(CLIP_FOLDER / name)
    source = f"local-dir:{CLIP_FOLDER}"
    model, _, preprocess = create_model_and_transforms(source, require_pretrained=True)
    return model.eval().requires_grad_(False), preprocess, get_tokenizer(source)


@torch.no_grad()
def embed_pictures(model: CLIP, preprocess: Any, pictures: torch.Tensor) -> torch.Tensor:
    """uint8 pictures (N, 3, 64, 64) -> unit vectors (N, 128)."""
    inputs = torch.stack([preprocess(Image.fromarray(picture.permute(1, 2, 0).numpy())) for picture in pictures])
    return torch.cat([model.encode_image(batch, normalize=True) for batch in inputs.split(128)])


@torch.no_grad()
def embed_captions(model: CLIP, tokenizer: Any, captions: Sequence[str]) -> torch.Tensor:
    """Captions -> unit vectors (N, 128)."""
    return torch.cat([model.encode_text(batch, normalize=True) for batch in tokenizer(list(captions)).split(128)])
