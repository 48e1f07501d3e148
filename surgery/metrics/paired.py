"""Variant against baseline, picture by picture: same prompt, same seed. All on uint8 (N, 3, H, W), each gives (N,).

With shared seeds these separate layers with far fewer pictures than distances of distributions do.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surgery.errors import InputError
from surgery.metrics.feature_sets import Array, Features, Origin, check_same_origin, finite_rows
from surgery.metrics.weight_files import WeightFile, digest_of_state, find_weights

SSIM_WINDOW_PX, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # for values in [0, 1]
LPIPS_SMALLEST_PX = 32
BATCH = 16
WITHOUT_LPIPS = "SSIM, PSNR and the feature cosine"
LPIPS_BACKBONES = {
    "alex": ("alexnet-owt-7be5be79.pth", "7be5be79"),
    "vgg": ("vgg16-397923af.pth", "397923af"),
    "squeeze": ("squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),
}


def paired_ssim(variant: torch.Tensor, baseline: torch.Tensor) -> Array:
    """Structural similarity (Wang et al. 2004, eq. 13; Gaussian window of 11 px, sigma 1.5; edges mirrored).

    Averaged over pixels and channels: 1, to the bit, for equal pictures. In float64: in float32 a white background with
    a few changed pixels is off by a fifth of what there is to see. The same as torchmetrics' in float64, many times
    faster: the window is applied as two products with a banded matrix.

    Raises:
        InputError: they do not pair, or are smaller than the window.
    """
    _check_pair(variant, baseline, smallest_px=SSIM_WINDOW_PX, what="SSIM's window")
    rows, columns = (_window_matrix(side) for side in variant.shape[2:])

    def mean(values: torch.Tensor) -> torch.Tensor:
        return rows @ values @ columns.T

    def measure(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mean_x, mean_y = mean(x), mean(y)
        spread = mean(x * x) - mean_x * mean_x + (mean(y * y) - mean_y * mean_y)
        common = mean(x * y) - mean_x * mean_y
        top = (2 * mean_x * mean_y + SSIM_C1) * (2 * common + SSIM_C2)
        bottom = (mean_x * mean_x + mean_y * mean_y + SSIM_C1) * (spread + SSIM_C2)
        return (top / bottom).mean((1, 2, 3))

    return _by_batch(measure, variant, baseline)


def _window_matrix(side: int) -> torch.Tensor:
    """(side, side): row i holds the window's weights around pixel i, those beyond an edge put on its mirror image."""
    reach = SSIM_WINDOW_PX // 2
    weights = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * SSIM_SIGMA**2))
    weights /= weights.sum()
    found = torch.zeros(side, side, dtype=torch.float64)
    for pixel in range(side):
        for step, weight in zip(range(-reach, reach + 1), weights, strict=True):
            at = abs(pixel + step)
            found[pixel, at if at < side else 2 * (side - 1) - at] += weight
    return found


def paired_psnr(variant: torch.Tensor, baseline: torch.Tensor) -> Array:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE) over all channels: infinite for equal pictures.

    Raises:
        InputError: they do not pair.
    """
    _check_pair(variant, baseline)
    errors = _by_batch(lambda one, other: ((one - other) ** 2).mean((1, 2, 3)), variant, baseline)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(errors)


def feature_cosine(variant: Features, baseline: Features) -> Array:
    """The cosine of each picture's features with its partner's (N,), float64; 0 where features are zero.

    Raises:
        InputError: they do not pair, or were not made with the same weights and resize protocol.
    """
    check_same_origin(variant, baseline)
    one, other = finite_rows(variant, at_least=1), finite_rows(baseline, at_least=1)
    if len(one) != len(other):
        raise InputError(f"{len(one)} pictures can't be paired with {len(other)}")
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: Array = (one * other).sum(1) / np.where(lengths > 0, lengths, 1.0)
    same = (one == other).all(1) & (lengths > 0)
    return np.where(same, 1.0, np.clip(found, -1, 1))  # equal features are at 1 exactly, not at 1 but for rounding


@dataclass(frozen=True)
class Lpips:
    """LPIPS with its weights: `digest` is the SHA-256 of all of them, backbone and linear layers."""

    name: str
    digest: str
    module: Any
    device: str

    @property
    def origin(self) -> Origin:
        """What its distances are measured with."""
        return Origin(self.name, self.digest, "none")

    def __call__(self, variant: torch.Tensor, baseline: torch.Tensor) -> Array:
        """Distances (N,): 0 for equal pictures. Pictures are not resized.

        Raises:
            InputError: they do not pair, or are smaller than 32 px.
        """
        _check_pair(variant, baseline, smallest_px=LPIPS_SMALLEST_PX, what="LPIPS")

        def measure(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            scaled = [(2 * item - 1).float().to(self.device) for item in (one, other)]
            distances: torch.Tensor = self.module(*scaled)
            return distances.flatten().cpu()

        return _by_batch(measure, variant, baseline)


def load_lpips(weights: Path | None = None, *, backbone: str = "alex", device: str = "cpu") -> Lpips:
    """LPIPS 0.1 (Zhang et al. 2018, arXiv 1801.03924). The package brings the linear layers, not the backbone.

    The backbone is torchvision's file, from `weights` or `$TORCH_HOME/hub/checkpoints/`; its hash is checked.

    Raises:
        InputError: there is no such backbone, the package or the file is missing, or the file is another.
    """
    if backbone not in LPIPS_BACKBONES:
        raise InputError(f"LPIPS has no backbone {backbone}; it has {', '.join(LPIPS_BACKBONES)}")
    try:
        import lpips
    except ImportError:
        raise InputError(
            f"LPIPS needs the package lpips: pip install 'layer-surgery[lpips]'; without it there are {WITHOUT_LPIPS}"
        ) from None
    name, sha256 = LPIPS_BACKBONES[backbone]
    url = f"https://download.pytorch.org/models/{name}"
    path = find_weights(WeightFile(name, sha256, url, f"LPIPS ({backbone})", WITHOUT_LPIPS), weights)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # it calls torchvision as of old
        module = lpips.LPIPS(net=backbone, pnet_rand=True, verbose=False)  # random: every weight is set below
    _fill_backbone(module.net, path)
    module = module.eval().requires_grad_(False).to(device)
    return Lpips(f"lpips-0.1-{backbone}", digest_of_state(module.state_dict()), module, device)


def _fill_backbone(net: Any, path: Path) -> None:
    """Set every weight of a backbone, whose slices keep the numbers of torchvision's `features`."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        features = {name.removeprefix("features."): value for name, value in loaded.items()}
        state = {name: features[re.sub(r"^slice\d+\.", "", name)] for name in net.state_dict()}
        net.load_state_dict(state)
    except Exception as error:  # as torch.load answers to files that are none
        raise InputError(f"{path} does not hold the weights of this backbone: {error}") from None


def _by_batch(
    measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], variant: torch.Tensor, baseline: torch.Tensor
) -> Array:
    """`measure` of pictures in [0, 1], float64, some at a time."""
    found = []
    with torch.no_grad():
        for start in range(0, len(variant), BATCH):
            one, other = (item[start : start + BATCH].double() / 255 for item in (variant, baseline))
            found.append(measure(one, other).double().reshape(-1))
    return np.asarray(torch.cat(found).numpy(), dtype=np.float64)


def _check_pair(variant: torch.Tensor, baseline: torch.Tensor, *, smallest_px: int = 1, what: str = "") -> None:
    for pictures in (variant, baseline):
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3 or not len(pictures):
            found = f"{str(pictures.dtype).removeprefix('torch.')} of shape {tuple(pictures.shape)}"
            raise InputError(f"pictures are uint8 of shape (N, 3, H, W), not {found}")
    if variant.shape != baseline.shape:
        raise InputError(f"pictures of shape {tuple(variant.shape)} can't be paired with {tuple(baseline.shape)}")
    if min(variant.shape[2:]) < smallest_px:
        raise InputError(f"pictures of {min(variant.shape[2:])} px are too small for {what}: at least {smallest_px} px")
