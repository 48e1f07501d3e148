"""The bundled judges as `surgery.evaluate` takes them: the extractor, and the reference of the real emoji under it."""

from pathlib import Path

from surgery.demo.extractor import NUM_FEATURES, load_extractor
from surgery.demo.judge_files import (
    CLIP_FOLDER,
    EXTRACTOR_FILE,
    EXTRACTOR_NAME,
    EXTRACTOR_STATE,
    RESIZE,
    check_digest,
)
from surgery.demo.reference import load_reference
from surgery.errors import InputError
from surgery.metrics.bundled_judges import BundledJudges
from surgery.metrics.extractors import Extractor, module_extractor
from surgery.metrics.feature_sets import Features


def bundled_judges() -> BundledJudges:
    """All three, for `surgery evaluate`; raises InputError where a file of the CLIP is not the recorded one."""
    return BundledJudges(bundled_extractor, bundled_clip(), bundled_reference)


def bundled_extractor(device: str = "cpu") -> Extractor:
    """`emoji-features-v1`; raises InputError where its file, or what was loaded of it, is not the recorded one."""
    return module_extractor(
        load_extractor(),
        name=EXTRACTOR_NAME,
        resize=RESIZE,
        channels=NUM_FEATURES,
        digest=EXTRACTOR_STATE,
        device=device,
    )


def bundled_reference(extractor: Extractor) -> Features:
    """The features of the real emoji; raises InputError where they are of another extractor, or not as recorded."""
    reference = load_reference()
    if extractor.name != EXTRACTOR_NAME or reference.extractor_digest != check_digest(EXTRACTOR_FILE):
        raise InputError(f"the bundled reference is of {EXTRACTOR_NAME}, not of {extractor.name}; give --reference")
    return Features(reference.features.numpy(), extractor.origin)


def bundled_clip() -> Path:
    """The folder of `clip-emoji-v1` in open_clip's format, once every file in it is the recorded one."""
    for file in sorted(CLIP_FOLDER.iterdir()):
        check_digest(file)
    return CLIP_FOLDER
