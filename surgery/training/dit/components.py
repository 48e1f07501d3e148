"""The names of an autoencoder and of an encoder of texts -> what they stand for, which training leaves as it is.

A name is `demo`, a folder, or a hub id: of a pipeline, whose part is taken, or of the part alone.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgery.anatomy.sources import is_hub_id
from surgery.bundled import DEMO_NAME, demo_folder
from surgery.files import expand_home
from surgery.progress import library_bars
from surgery.training.dit.config import TrainConfig

TEXT_CLASSES = {"clip": "CLIPTextModelWithProjection", "clip_text_model": "CLIPTextModelWithProjection"}
TEXT_CLASSES |= {"t5": "T5EncoderModel", "umt5": "UMT5EncoderModel"}
FAILURES = (OSError, ValueError, RuntimeError, AttributeError, TypeError, KeyError)


def load_autoencoder(config: TrainConfig) -> Any:
    """The autoencoder of a config in float32; None without one.

    Raises:
        SpecError: it can't be loaded, with the place of its name.
    """
    from diffusers import AutoModel

    name = config.autoencoder
    if name is None:
        return None
    try:
        place = _place_of(config, name)
        part = {"subfolder": "vae"} if _index_of(place) else {}
        with library_bars():
            found = AutoModel.from_pretrained(place, torch_dtype=torch.float32, use_safetensors=True, **part)
    except FAILURES as error:
        raise config.fault("autoencoder", f"the autoencoder {name} can't be loaded: {_first_line(error)}") from None
    if not hasattr(found, "encode") or not hasattr(found, "decode"):
        raise config.fault("autoencoder", f"{name} is a {type(found).__name__}, and no autoencoder")
    return found.eval().requires_grad_(False)


def load_text_encoder(config: TrainConfig) -> tuple[Any, Any]:
    """The encoder of texts of a config in float32, and its tokenizer.

    Raises:
        SpecError: they can't be loaded, with the place of their name.
    """
    import transformers

    name = config.text_encoder
    assert name is not None, "a config of texts names it"
    try:
        place = _place_of(config, name)
        index = _index_of(place)
        own, words = ({"subfolder": part} if index else {} for part in ("text_encoder", "tokenizer"))
        kind = index["text_encoder"][1] if index else _text_class_of(place)
        with library_bars():
            encoder = getattr(transformers, kind).from_pretrained(
                place, dtype=torch.float32, use_safetensors=True, **own
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, **words)
    except FAILURES as error:
        raise config.fault("text_encoder", f"the text encoder {name} can't be loaded: {_first_line(error)}") from None
    return encoder.eval().requires_grad_(False), tokenizer


def hash_weights(module: nn.Module | None) -> str:
    """The SHA-256 of a module's class and weights, by which what it made is kept; of nothing the empty text."""
    if module is None:
        return ""
    digest = hashlib.sha256(type(module).__name__.encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _place_of(config: TrainConfig, name: str) -> str:
    """A folder, or the name as a hub id; raises ValueError where it can be neither."""
    folder = demo_folder() if name == DEMO_NAME else config.folder / expand_home(name)
    if Path(folder).is_dir():
        return str(folder)
    if name.startswith(".") or not is_hub_id(name):
        raise ValueError("there is no such folder; write demo, a folder, or a hub id like OWNER/NAME")
    return name


def _index_of(place: str) -> dict[str, Any]:
    """The parts of a pipeline; empty where the place is none."""
    from diffusers import DiffusionPipeline

    try:
        return dict(DiffusionPipeline.load_config(place))
    except (OSError, ValueError):
        return {}


def _text_class_of(place: str) -> str:
    import transformers

    kind = transformers.AutoConfig.from_pretrained(place).model_type
    return TEXT_CLASSES.get(kind, "AutoModel")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
