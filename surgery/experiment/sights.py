"""What there is of a row -> what its metrics look at: each sight once for every judge that has it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from surgery.experiment.beside_real import BesideReal
from surgery.experiment.denoising_error import DenoisingErrors
from surgery.experiment.jury import Array, ImageJudge, Judges
from surgery.experiment.latency import Latency
from surgery.experiment.metric_table import FIRST_EXTRACTOR, REAL_FEATURES, ROOM_FOR_WINDOW, Sight
from surgery.metrics.extractors import Extractor
from surgery.metrics.feature_cache import features_of
from surgery.metrics.feature_sets import Features, Origin
from surgery.metrics.paired import SSIM_WINDOW_PX
from surgery.metrics.pictures import PictureSet


@dataclass(frozen=True)
class Observed:
    """A row's pictures, if they were drawn, beside the baseline's, of the same prompts; controls of other noise pair by
    prompt alone.

    `errors` are the denoising errors of the row and of the baseline, where they were measured; `has_truth` says that
    those to the truth are of real pictures. `latency` is how long it takes, where that was measured.
    """

    pictures: PictureSet | None
    baseline: PictureSet
    prompts: tuple[str, ...]
    judges: Judges
    errors: tuple[DenoisingErrors, DenoisingErrors] | None = None
    has_truth: bool = False
    latency: Latency | None = None


@dataclass(frozen=True)
class View:
    """What one judge sees: `seen` is what a metric is made from, by `by`; `words` are for its names.

    `gives` is what of the needs of metrics it meets.
    """

    seen: tuple[Any, ...]
    made_with: str = ""
    by: Origin = field(default_factory=Origin)
    words: Mapping[str, str] = field(default_factory=dict)
    gives: frozenset[str] = frozenset()


def has_sight(sight: Sight, judges: Judges) -> bool:
    """Whether there are judges for it, before anything is drawn."""
    match sight:
        case Sight.REAL:
            return any(judge.reference is not None for judge in judges.images)
        case Sight.REAL_BY_CLIP:
            return judges.cmmd is not None
        case Sight.TEXT:
            return bool(judges.texts)
        case Sight.LPIPS:
            return judges.lpips is not None
        case Sight.FEATURES:
            return bool(judges.images)
        case Sight.PIXELS | Sight.PREDICTIONS | Sight.TRUTH | Sight.LATENCY | Sight.MEMORY:
            return True
        case _:
            assert_never(sight)


def has_room_for_window(pictures: PictureSet) -> bool:
    """Whether SSIM can be measured of pictures of this size."""
    return min(pictures.size) >= SSIM_WINDOW_PX


def views_of(sight: Sight, row: Observed) -> Iterator[View]:
    """One for each judge, in their order; none where there is none, or nothing to be seen."""
    if sight in (Sight.PREDICTIONS, Sight.TRUTH):
        yield from _beside_predictions(sight, row)
    elif sight in (Sight.LATENCY, Sight.MEMORY):
        yield from _beside_time(sight, row)
    elif row.pictures is not None:
        yield from _views_of_pictures(sight, row, row.pictures)


def _views_of_pictures(sight: Sight, row: Observed, pictures: PictureSet) -> Iterator[View]:
    judges = row.judges
    match sight:
        case Sight.REAL:
            for number, judge in enumerate(judges.images):
                yield from _beside_real(judge, pictures, judges, {FIRST_EXTRACTOR} if number == 0 else set())
        case Sight.REAL_BY_CLIP:
            if judges.cmmd is not None:
                yield from _beside_real(judges.cmmd, pictures, judges, set())
        case Sight.TEXT:
            yield from _beside_text(row, pictures)
        case Sight.PIXELS:
            gives = {ROOM_FOR_WINDOW} if has_room_for_window(pictures) else set()
            yield View((pictures.all_pixels(), row.baseline.all_pixels()), gives=frozenset(gives))
        case Sight.LPIPS:
            if judges.lpips is not None:
                by, pixels = judges.lpips.origin, (pictures.all_pixels(), row.baseline.all_pixels())
                yield View((judges.lpips, *pixels), f"{by.extractor} {by.digest[:12]}", by)
        case Sight.FEATURES:
            if judges.images:
                extractor = judges.images[0].extractor
                seen = tuple(features_of(item, extractor, cache=judges.cache) for item in (pictures, row.baseline))
                yield _by_extractor(seen, extractor, set())


def _beside_real(judge: ImageJudge, pictures: PictureSet, judges: Judges, gives: set[str]) -> Iterator[View]:
    if judge.reference is not None:
        features = features_of(pictures, judge.extractor, cache=judges.cache)
        known = {REAL_FEATURES} if isinstance(judge.reference, Features) else set()
        yield _by_extractor((BesideReal(features, judge.reference),), judge.extractor, gives | known)


def _beside_text(row: Observed, pictures: PictureSet) -> Iterator[View]:
    for judge in row.judges.texts:
        seen: tuple[Array, ...] = tuple(100 * judge.score(item, row.prompts) for item in (pictures, row.baseline))
        yield View(seen, judge.label, judge.by, {"judge": judge.short, "label": judge.label})


def _beside_predictions(sight: Sight, row: Observed) -> Iterator[View]:
    if row.errors is None:
        return
    own, baseline = row.errors
    made_with = f"{own.to_baseline.shape[1]} timesteps, unguided"
    if sight is Sight.PREDICTIONS:
        yield View((own.to_baseline,), made_with)
    elif row.has_truth:
        yield View((own.to_truth, baseline.to_truth), f"{made_with}, the prompts' own pictures")


def _beside_time(sight: Sight, row: Observed) -> Iterator[View]:
    if row.latency is None:
        return
    words = {"device": row.latency.device}
    if sight is Sight.LATENCY:
        yield View((row.latency,), words=words)
    elif row.latency.peak_bytes is not None:
        yield View((row.latency.peak_bytes,), words=words)


def _by_extractor(seen: tuple[Any, ...], extractor: Extractor, gives: set[str]) -> View:
    made_with = f"{extractor.name} {extractor.digest[:12]}, {extractor.resize}"
    words = {"extractor": extractor.name, "frechet": frechet_name(extractor), "frechet_head": frechet_head(extractor)}
    return View(seen, made_with, extractor.origin, words, frozenset(gives))


def frechet_name(extractor: Extractor) -> str:
    """FID is the distance by Inception, FD-DINOv2 that by DINOv2; by another extractor it is called so."""
    match frechet_head(extractor):
        case "FID":
            return "FID"
        case "FD-DINOv2":
            return f"FD-DINOv2 ({extractor.name})"
    return f"Frechet distance ({extractor.name})"


def frechet_head(extractor: Extractor) -> str:
    """The same for the head of a column."""
    if extractor.name.startswith("inception"):
        return "FID"
    return "FD-DINOv2" if extractor.name.startswith("dinov2") else "Frechet"
