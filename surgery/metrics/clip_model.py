"""A CLIP of open_clip, loaded so that its traps are closed: no random weights, the right activation, its own pictures.

It is a folder in open_clip's format (`local-dir:FOLDER`), which says itself how pictures are prepared; or a name of
open_clip's with a file of weights, where the *tag* of these weights (`openai`, `laion2b_s34b_b79k`) says it. Nothing is
downloaded.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.metrics.extractors import Extractor, package_versions
from surgery.metrics.weight_files import digest_of_state

LOCAL = "local-dir:"
CONFIG = "open_clip_config.json"
WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pth")  # as open_clip looks for them
QUICK = "-quickgelu"
WITHOUT = "without it there are FID and KID, and all metrics against the baseline"
PREPARATION = ("mean", "std", "interpolation", "resize_mode")
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HPS_NAME, HPS_TAG = "ViT-H-14", "hpsv2.1"  # its cosine was trained on preferences (Wu et al. 2023, arXiv 2306.09341)
HPS = {"mean": OPENAI_MEAN, "std": OPENAI_STD, "interpolation": "bicubic", "resize_mode": "longest"}


@dataclass(frozen=True)
class ClipModel:
    """A model with its tokenizer and its preparation of pictures; `digest` is the SHA-256 of its weights.

    `resize` says in words how pictures are prepared, and `context_length` how many tokens of a prompt are read.
    """

    name: str
    digest: str
    resize: str
    context_length: int
    channels: int
    module: Any
    prepare: Callable[[Image.Image], torch.Tensor]
    tokenizer: Any
    device: str = "cpu"

    @torch.no_grad()
    def embed_pictures(self, pictures: torch.Tensor) -> NDArray[np.float32]:
        """uint8 (N, 3, H, W) -> embeddings of length 1, (N, channels)."""
        images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures.cpu()]
        prepared = torch.stack([self.prepare(image) for image in images]).to(self.device)
        return _unit(self.module.encode_image(prepared))

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of length 1, (N, channels)."""
        return _unit(self.module.encode_text(self.tokenizer(list(prompts)).to(self.device)))

    def cut(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """The prompts that have more tokens than the model reads: with room for one more they are others."""
        if not prompts:
            return ()
        length = self.context_length
        read = self.tokenizer(list(prompts), context_length=length)
        longer = self.tokenizer(list(prompts), context_length=length + 1)[:, :length]
        return tuple(prompt for prompt, differ in zip(prompts, (read != longer).any(1), strict=True) if differ)

    def extractor(self) -> Extractor:
        """Its image side as an extractor of features, for cosines against the baseline and for CMMD."""

        def forward(pictures: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(self.embed_pictures(pictures))

        versions = package_versions("torch", "torchvision", "open_clip_torch", "pillow")
        return Extractor(self.name, self.digest, self.resize, self.channels, forward, self.device, versions)


def load_clip(name: str, weights: Path | None = None, *, tag: str | None = None, device: str = "cpu") -> ClipModel:
    """The model of a folder (`local-dir:FOLDER`), or of one of open_clip's names with its file of weights.

    For a name, `tag` is one of open_clip's for these weights (or `hpsv2.1` of `ViT-H-14`); it can be left out where all
    weights of the name are prepared for alike. OpenAI's weights need the names that end in `-quickgelu`.

    Raises:
        InputError: the folder, the name, the tag or the file is not usable, the name's activation is not the one that
            the weights were trained with, or parts would have to be downloaded.
    """
    import open_clip

    if name.startswith(LOCAL):
        arguments, label = _of_folder(name, weights, tag), f"clip-{Path(name.removeprefix(LOCAL)).resolve().name}"
    else:
        arguments, label = _of_name(name, weights, tag), name if tag is None else f"{name}/{tag}"
    try:
        module, prepare = open_clip.create_model_from_pretrained(name, device=device, **arguments)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # as open_clip, torch and transformers answer to files that do not fit
        source = name if weights is None else weights
        raise InputError(f"{source} can't be loaded as a CLIP: {error}") from None
    module = module.eval().requires_grad_(False)
    prepared = module.visual.preprocess_cfg
    return ClipModel(
        label,
        digest_of_state(module.state_dict()),
        f"{prepared['size']} px, {prepared['interpolation']} by Pillow, {prepared['resize_mode']} side, then centred",
        int(tokenizer.context_length),
        _channels(module),
        module,
        prepare,
        tokenizer,
        device,
    )


def _of_folder(name: str, weights: Path | None, tag: str | None) -> dict[str, Any]:
    folder = Path(name.removeprefix(LOCAL))
    if weights is not None or tag is not None:
        raise InputError(f"{name} brings its own weights and preparation; leave file and tag out")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} is no folder in open_clip's format: there is no {CONFIG}; {WITHOUT}")
    if not any(found for pattern in WEIGHT_PATTERNS for found in folder.glob(pattern)):
        raise InputError(
            f"{folder} holds no weights ({', '.join(WEIGHT_PATTERNS)}), and the model would be random; "
            f"put open_clip_model.safetensors there; {WITHOUT}"
        )
    with told_as(f"{folder / CONFIG} can't be read"):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        named, prepared = config["model_cfg"]["text_cfg"].get("hf_model_name"), config.get("preprocess_cfg")
    if not prepared:
        raise InputError(f"{folder / CONFIG} has no preprocess_cfg: how pictures are prepared would be guessed")
    if named:
        raise InputError(f"the text side of {folder} is {named}, which would be fetched from the Hub")
    return {}


def _of_name(name: str, weights: Path | None, tag: str | None) -> dict[str, Any]:
    import open_clip

    config = open_clip.get_model_config(name) if ":" not in name else None
    if config is None:
        raise InputError(f"open_clip has no model {name}; give one of its names, or {LOCAL}FOLDER")
    text = config["text_cfg"]
    if text.get("hf_tokenizer_name") or text.get("hf_model_name"):
        raise InputError(f"the text side of {name} would be fetched from the Hub; give all in a folder: {LOCAL}FOLDER")
    chosen = _preparation(name, tag, quick_gelu=bool(config.get("quick_gelu")))
    if weights is None or not weights.is_file():
        where = f"there is no {weights}" if weights is not None else "none is given"
        raise InputError(
            f"the CLIP score by {name} needs a file of its weights, and {where}; {_where(name, tag)}; {WITHOUT}"
        )
    return {"pretrained": str(weights), **{f"image_{key}": chosen[key] for key in PREPARATION if key in chosen}}


def _preparation(name: str, tag: str | None, *, quick_gelu: bool) -> dict[str, Any]:
    """How pictures are prepared for weights of a tag; InputError where they were trained with another activation."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    known = {own: dict(open_clip.get_pretrained_cfg(name, own)) for own in tags}
    if name == HPS_NAME:
        known[HPS_TAG] = dict(HPS)
    if tag is None and name.endswith(QUICK) and "openai" in known:
        tag = "openai"
    if tag is None and (name + QUICK in open_clip.list_models() or len({_frozen(own) for own in known.values()}) > 1):
        raise InputError(
            f"say which weights of {name} the file holds, by their tag: {', '.join(known)}; "
            f"OpenAI's are of {name.removesuffix(QUICK)}{QUICK}, whose activation is another"
        )
    if tag is None:
        return next(iter(known.values()), {})
    if tag not in known:
        raise InputError(f"open_clip knows no weights {tag} of {name}; it knows {', '.join(known) or 'none'}")
    if bool(known[tag].get("quick_gelu")) != quick_gelu:
        right = name.removesuffix(QUICK) if quick_gelu else name + QUICK
        raise InputError(f"the weights {tag} are of {right}, not of {name}: their activation is another")
    return known[tag]


def _where(name: str, tag: str | None) -> str:
    import open_clip

    own = tag or ("openai" if name.endswith(QUICK) else None)
    hub = (open_clip.get_pretrained_cfg(name, own) or {}).get("hf_hub", "") if own else ""
    if not hub:
        return f"give one, or a folder in open_clip's format as {LOCAL}FOLDER"
    return f"fetch open_clip_model.safetensors of {hub.rstrip('/')} from the Hugging Face Hub"


def _frozen(prepared: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(prepared.get(key) for key in PREPARATION)


def _channels(module: Any) -> int:
    """How many channels an embedding has."""
    projection = getattr(module, "text_projection", None)
    if isinstance(projection, torch.Tensor):
        return int(projection.shape[-1])
    return int(module.visual.output_dim)


def _unit(embeddings: torch.Tensor) -> NDArray[np.float32]:
    values = embeddings.float()
    values = values / values.norm(dim=-1, keepdim=True)
    found: NDArray[np.float32] = values.cpu().numpy()
    return found
