"""Who scores pictures: extractors with what they make of real pictures, CLIPs, LPIPS."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.metrics.extractors import Extractor
from surgery.metrics.feature_sets import Features, Origin, Statistics, digest_of, number_of
from surgery.metrics.paired import Lpips
from surgery.metrics.pictures import PictureSet

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ImageJudge:
    """An extractor, and what it makes of real pictures (None: there are none)."""

    extractor: Extractor
    reference: Features | Statistics | None

    def to_json(self) -> dict[str, Any]:
        """The extractor with the digest of its weights, and the reference with that of its values."""
        found: dict[str, Any] = {**self.extractor.origin.to_json()}
        if self.reference is not None:
            found["reference"] = {"num": number_of(self.reference), "sha256": digest_of(self.reference)}
        return found


@dataclass(frozen=True)
class TextJudge:
    """`score` gives the cosine of each picture with its prompt (N,), by the CLIP `by`; `short` heads its column."""

    short: str
    by: Origin
    score: Callable[[PictureSet, tuple[str, ...]], Array]

    @property
    def label(self) -> str:
        """The CLIP and the digest of its weights."""
        return f"{self.by.extractor} {self.by.digest[:12]}"


@dataclass(frozen=True)
class Judges:
    """What scores pictures. The first of `images` pairs them with the baseline's; `cmmd` is a CLIP's image side."""

    images: tuple[ImageJudge, ...]
    texts: tuple[TextJudge, ...]
    cmmd: ImageJudge | None
    lpips: Lpips | None
    cache: Path

    def to_json(self) -> dict[str, Any]:
        """Who judges, and by which real pictures."""
        found: dict[str, Any] = {
            "pictures": [judge.to_json() for judge in self.images],
            "text": [judge.label for judge in self.texts],
        }
        return found if self.cmmd is None else {**found, "cmmd": self.cmmd.to_json()}
