"""Feature extractors: pictures -> features, by weights that are known by their digest and are never random.

| extractor | weights |
|---|---|
| `inception_extractor` | torch-fidelity's InceptionV3, that of the original FID (arXiv 1706.08500) |
| `fidelity_extractor` | any class of torch-fidelity's kind, by name or import path |
| `dinov2_extractor` | a folder of DINOv2 in transformers' format (FD-DINOv2: Stein et al. 2023, arXiv 2306.04675) |
| `module_extractor` | a module of one's own, with its weights in it |
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import nn

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.metrics.feature_sets import Origin
from surgery.metrics.weight_files import WeightFile, digest_of_state, find_weights

INCEPTION_NAME = "inception-v3-compat"
INCEPTION = WeightFile(
    name="weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    serves="FID, KID, precision and recall by Inception",
    without="everything against the baseline (SSIM, PSNR, feature cosine, the denoising error), and the same distances "
    "by another extractor",
)
TF1_RESIZE = "TensorFlow 1 bilinear to {0} x {0}, no antialias (torch-fidelity)"
DINOV2_PX = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SEEDS = (0, 1)  # two random initialisations differ, two loads of weights do not


@dataclass(frozen=True)
class Extractor:
    """`forward` turns uint8 (n, 3, H, W) into (n, channels); `digest` is the SHA-256 of the weights that it holds.

    `resize` says in words what is done to a picture's size; features of two protocols are not compared. `versions` are
    of the packages whose code the features depend on.
    """

    name: str
    digest: str
    resize: str
    channels: int
    forward: Callable[[torch.Tensor], torch.Tensor]
    device: str = "cpu"
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> Origin:
        """What its features are marked with."""
        return Origin(self.name, self.digest, self.resize)

    def require(self, digest: str) -> "Extractor":
        """Itself; raises InputError where its weights are not those of this digest (or of its beginning)."""
        if not digest or not self.digest.startswith(digest):
            raise InputError(
                f"the weights of {self.name} are not the wanted ones: their digest is {self.digest}, not {digest}; "
                "load the file that they were recorded from"
            )
        return self

    @torch.no_grad()
    def extract(self, pictures: torch.Tensor) -> NDArray[np.float32]:
        """Features (N, channels) of uint8 pictures (N, 3, H, W), in one batch.

        Raises:
            InputError: the pictures are of another dtype or shape, or the extractor does not give what it says.
        """
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3:
            found = f"{str(pictures.dtype).removeprefix('torch.')} of shape {tuple(pictures.shape)}"
            raise InputError(f"{self.name} reads uint8 pictures of shape (N, 3, H, W), not {found}")
        features = self.forward(pictures.to(self.device))
        if tuple(features.shape) != (len(pictures), self.channels):
            raise InputError(f"{self.name} gave features of shape {tuple(features.shape)}, not (N, {self.channels})")
        values: NDArray[np.float32] = features.detach().float().cpu().numpy()
        return values


def module_extractor(
    module: nn.Module, *, name: str, resize: str, channels: int, digest: str = "", device: str = "cpu"
) -> Extractor:
    """An extractor of a module whose forward turns uint8 (N, 3, H, W) into (N, channels), once its weights are in it.

    `digest` is the one that the weights must have, as recorded when they were made (`digest_of_state`).

    Raises:
        InputError: the weights have another digest.
    """
    module = module.eval().requires_grad_(False).to(device)
    found = digest_of_state(module.state_dict())
    made = Extractor(name, found, resize, channels, module, device, package_versions("torch"))
    return made.require(digest) if digest else made


def inception_extractor(weights: Path | None = None, *, device: str = "cpu") -> Extractor:
    """Torch-fidelity's InceptionV3: (N, 3, H, W) -> (N, 2048), the layer before the logits.

    The weights are read from `weights`, or from `$TORCH_HOME/hub/checkpoints/`, once their hash is the published one.

    Raises:
        InputError: the weights are missing, or another file.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = find_weights(INCEPTION, weights)
    _refuse_pickled_code(path)
    given = {"feature_extractor_weights_path": str(path)}
    module = _made_alike(FeatureExtractorInceptionV3, INCEPTION_NAME, "2048", given)
    return _of_fidelity(module, INCEPTION_NAME, TF1_RESIZE.format(module.INPUT_IMAGE_SIZE), 2048, device)


def fidelity_extractor(
    where: str,
    *,
    resize: str,
    channels: int,
    weights: Path | None = None,
    layer: str | None = None,
    device: str = "cpu",
) -> Extractor:
    """An extractor of torch-fidelity's kind: `where` is the name under which it was registered, or `module:Class`.

    `layer` is the feature that is taken, by default the one that the class names for FID. It is made twice, under two
    seeds, so that weights that are not read from anywhere are found out.

    Raises:
        InputError: there is no such class, it needs a file of weights, or its weights are random.
    """
    cls = _fidelity_class(where)
    if cls.__module__.startswith("torch_fidelity."):
        if weights is None:
            raise InputError(f"{where} would fetch its weights; give them as a file, nothing is downloaded")
        _refuse_pickled_code(weights)
    wanted = layer or cls.get_default_feature_layer_for_metric("fid")
    if wanted not in cls.get_provided_features_list():
        known = ", ".join(cls.get_provided_features_list())
        raise InputError(f"{where} gives no feature {wanted}; it gives {known}")
    path = {} if weights is None else {"feature_extractor_weights_path": str(weights)}
    return _of_fidelity(_made_alike(cls, where, wanted, path), f"{where}/{wanted}", resize, channels, device)


def dinov2_extractor(folder: Path, *, device: str = "cpu") -> Extractor:
    """DINOv2 from a folder with `config.json` and `model.safetensors` in transformers' format; the class token.

    Pictures are resized to 224 x 224 by Pillow's bicubic filter, as the code of arXiv 2306.04675 does.

    Raises:
        InputError: there is no such folder, it is of another model, or it does not hold all weights.
    """
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise InputError(
            f"FD-DINOv2 needs a folder with config.json and model.safetensors of DINOv2, and {folder} is none; "
            "fetch facebook/dinov2-large from the Hugging Face Hub and give its folder; without it there are FID and "
            "KID by Inception, and all metrics against the baseline"
        )
    from transformers import Dinov2Model

    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind != "dinov2":
            raise InputError(f"{folder} is of a {kind}, not of a dinov2")
        model, report = Dinov2Model.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise InputError(f"{folder} can't be loaded as DINOv2: {error}") from None
    absent = sorted({*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])})
    if absent:
        raise InputError(f"{folder} lacks {len(absent)} weights of DINOv2, which would be random, {absent[0]} first")
    model = model.eval().requires_grad_(False).to(device)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))

    def forward(pictures: torch.Tensor) -> torch.Tensor:
        scaled = (resized_by_pillow(pictures, DINOV2_PX) / 255 - mean) / std  # n x 3 x 224 x 224
        tokens: torch.Tensor = model(scaled.to(device)).last_hidden_state
        return tokens[:, 0]

    return Extractor(
        f"dinov2-{model.config.hidden_size}",
        digest_of_state(model.state_dict()),
        f"Pillow bicubic to {DINOV2_PX} x {DINOV2_PX}",
        model.config.hidden_size,
        forward,
        device,
        package_versions("torch", "transformers", "pillow"),
    )


def resized_by_pillow(pictures: torch.Tensor, side_px: int) -> torch.Tensor:
    """uint8 (N, 3, H, W) -> float32 (N, 3, side, side) of 0 to 255, by Pillow's bicubic filter (antialiased)."""
    found = []
    for picture in pictures.cpu():
        image = Image.fromarray(picture.permute(1, 2, 0).numpy())
        resized = np.asarray(image.resize((side_px, side_px), Image.Resampling.BICUBIC), dtype=np.float32)
        found.append(torch.from_numpy(resized.copy()).permute(2, 0, 1))
    return torch.stack(found)


def _of_fidelity(module: Any, name: str, resize: str, channels: int, device: str) -> Extractor:
    """Of a torch-fidelity module that gives one feature; on the device that is asked for, not on CUDA by default."""
    module = module.eval().requires_grad_(False).to(device)

    def forward(pictures: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = module(pictures)[0]
        return features

    digest, versions = digest_of_state(module.state_dict()), package_versions("torch", "torch-fidelity")
    return Extractor(name, digest, resize, channels, forward, device, versions)


def _fidelity_class(where: str) -> Any:
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    module, _, name = where.partition(":")
    if not name:
        found = FEATURE_EXTRACTORS_REGISTRY.get(where)
        if found is None:
            known = ", ".join(FEATURE_EXTRACTORS_REGISTRY)
            raise InputError(f"torch-fidelity has no extractor {where}; it has {known}; or give module:Class")
        return found
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the extractor {where} can't be imported: {error}") from None
    if not isinstance(found, type) or not issubclass(found, FeatureExtractorBase):
        raise InputError(f"{where} is no subclass of torch_fidelity's FeatureExtractorBase")
    return found


def _made_alike(cls: Any, name: str, layer: str, path: dict[str, str]) -> Any:
    """An instance; raises InputError where two that are made under two seeds have other weights."""
    made = [_made_under(seed, cls, name, layer, path) for seed in SEEDS]
    if digest_of_state(made[0].state_dict()) != digest_of_state(made[1].state_dict()):
        raise InputError(
            f"the weights of {name} are random: two that were made alike differ; let it load its weights from a file"
        )
    return made[0]


def _made_under(seed: int, cls: Any, name: str, layer: str, path: dict[str, str]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with told_as(f"the extractor {name} can't be made"):
            return cls(name, [layer], **path)


def _refuse_pickled_code(path: Path) -> None:
    """Raise InputError where a file of weights holds anything but tensors: torch-fidelity would run it."""
    with told_as(f"{path} can't be read as a file of tensors"):
        torch.load(path, map_location="cpu", weights_only=True)


def package_versions(*packages: str) -> dict[str, str]:
    """The installed version of each package."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
