"""The bundled extractor as torch-fidelity knows it: `calculate_metrics(feature_extractor="emoji-features-v1", ...)`.

Importing this module imports torch-fidelity; `register_extractor` makes the name known.
"""

from collections.abc import Sequence

import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from surgery.demo.extractor import load_extractor
from surgery.demo.judge_files import EXTRACTOR_NAME
from surgery.errors import InputError

FEATURE_NAME = "features"
DTYPES = {None: torch.float32, "float32": torch.float32, "float64": torch.float64}
METRICS = ("fid", "kid", "prc")


class EmojiFidelityExtractor(FeatureExtractorBase):  # type: ignore[misc]  # torch-fidelity has no types
    """One kind of feature, `features`; the arithmetic really is in `feature_extractor_internal_dtype`."""

    def __init__(
        self,
        name: str,
        features_list: Sequence[str],
        feature_extractor_weights_path: str | None = None,
        feature_extractor_internal_dtype: str | None = None,
        **_: object,  # torch-fidelity hands over all options of its caller
    ) -> None:
        super().__init__(name, features_list)
        if feature_extractor_weights_path is not None:
            raise InputError(f"{EXTRACTOR_NAME} has its own weights; leave feature_extractor_weights_path out")
        if feature_extractor_internal_dtype not in DTYPES:
            raise InputError(f"{EXTRACTOR_NAME} computes in float32 or float64, not {feature_extractor_internal_dtype}")
        self.extractor = load_extractor().to(DTYPES[feature_extractor_internal_dtype])

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """uint8 (N, 3, 64, 64) -> one tensor of float32 (N, 192)."""
        return (self.extractor(pictures),)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """The one kind of feature."""
        return (FEATURE_NAME,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The same feature for each metric; raises InputError for the Inception score, which needs classes."""
        if metric not in METRICS:
            raise InputError(
                f"{EXTRACTOR_NAME} has no classes, which {metric!r} needs; it measures {', '.join(METRICS)}"
            )
        return FEATURE_NAME

    @staticmethod
    def can_be_compiled() -> bool:
        """It is plain convolutions."""
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> torch.Tensor:
        """One black picture."""
        return torch.zeros(1, 3, 64, 64, dtype=torch.uint8)


def register_extractor() -> str:
    """Make the extractor known to torch-fidelity, once; returns its name."""
    if EXTRACTOR_NAME not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(EXTRACTOR_NAME, EmojiFidelityExtractor)
    return EXTRACTOR_NAME
