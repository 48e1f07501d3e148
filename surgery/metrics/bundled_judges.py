"""What a model may bring along to be judged by."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from surgery.metrics.extractors import Extractor
from surgery.metrics.feature_sets import Features


@dataclass(frozen=True)
class BundledJudges:
    """What ships with the bundled pipeline: an extractor, a folder in open_clip's format, features of real emoji.

    `extractor` is told on which device it is to be.
    """

    extractor: Callable[[str], Extractor]
    clip_folder: Path
    reference: Callable[[Extractor], Features]
