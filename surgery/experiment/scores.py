"""Pictures of a row -> its numbers, each with an interval: against real pictures, the text, and the baseline."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.metrics.extractors import Extractor
from surgery.metrics.feature_cache import features_of
from surgery.metrics.feature_sets import Features, Origin, Statistics, digest_of, number_of
from surgery.metrics.frechet import RELIABLE_NUM, frechet_distance, frechet_interval
from surgery.metrics.intervals import Interval, difference_interval, grouped_jackknife, mean_interval
from surgery.metrics.kernel_distance import cmmd, kernel_distance
from surgery.metrics.paired import Lpips, feature_cosine, paired_psnr, paired_ssim
from surgery.metrics.pictures import PictureSet
from surgery.metrics.precision_recall import NUM_NEIGHBOURS, precision_recall

Array = NDArray[np.float64]
FID, DINOV2, LONG = "FID", "FD-DINOv2", "Frechet distance"
FRECHET = "frechet"  # the kind of all three
MIN_JACKKNIFE = 40  # pictures, for twenty groups
MIN_PICTURES = NUM_NEIGHBOURS + 1  # for precision and recall; KID takes one fewer


@dataclass(frozen=True)
class Metric:
    """What a number is called (`short` in tables), whether more of it is better, and what it was made with.

    `kind` is what is measured and `by` the network that it is measured by, where there is one: together they are its
    `key`. Names may be shared. `is_paired` says that it compares each picture with the baseline's of the same prompt
    and seed.
    """

    kind: str
    name: str
    short: str
    higher_is_better: bool
    made_with: str
    by: Origin = field(default_factory=Origin)
    is_paired: bool = False
    flag: str = ""

    @property
    def key(self) -> str:
        """Tells it from every other metric: `frechet by dinov2-384 <digest of its weights>, <how it resizes>`."""
        by = self.by
        return f"{self.kind} by {by.extractor} {by.digest}, {by.resize}" if by.is_known else self.kind


@dataclass(frozen=True)
class Score:
    """A metric of a row. `difference` is to the baseline, prompt by prompt; `values` one number a prompt, or none."""

    metric: Metric
    interval: Interval
    difference: Interval | None = None
    values: Array | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **self.interval.to_json(),
            "key": self.metric.key,
            "higher_is_better": self.metric.higher_is_better,
            "made_with": self.metric.made_with,
            "paired_with_the_baseline": self.metric.is_paired,
            **({"flag": self.metric.flag} if self.metric.flag else {}),
            **({"difference_to_baseline": self.difference.to_json()} if self.difference else {}),
        }


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


def score_row(pictures: PictureSet, baseline: PictureSet, prompts: tuple[str, ...], judges: Judges) -> list[Score]:
    """All numbers of a row that come from its pictures. Controls of other noise pair by prompt alone."""
    scores: list[Score] = []
    for number, judge in enumerate(judges.images):
        if judge.reference is not None:
            features = features_of(pictures, judge.extractor, cache=judges.cache)
            found = score_against_reference(features, judge.reference, judge.extractor)
            scores += [score for score in found if number == 0 or score.metric.kind == FRECHET]
    if judges.cmmd is not None and isinstance(judges.cmmd.reference, Features):
        extractor = judges.cmmd.extractor
        metric = Metric("cmmd", f"CMMD ({extractor.name})", "CMMD", False, _made_with(extractor), extractor.origin)
        features = features_of(pictures, extractor, cache=judges.cache)
        scores.append(Score(metric, cmmd(features, judges.cmmd.reference)))
    scores += [_score_text(pictures, baseline, prompts, judge) for judge in judges.texts]
    return scores + _score_pairs(pictures, baseline, judges)


def _made_with(extractor: Extractor) -> str:
    return f"{extractor.name} {extractor.digest[:12]}, {extractor.resize}"


def notes_on_number(num: int, judges: Judges) -> list[str]:
    """What so few prompts do not allow to be measured."""
    if all(judge.reference is None for judge in judges.images):
        return []
    notes = []
    if num < MIN_JACKKNIFE:
        notes.append(f"no Frechet distances: they need at least {MIN_JACKKNIFE} prompts")
    if num < MIN_PICTURES:
        notes.append(f"no KID, precision and recall: they need at least {MIN_PICTURES} prompts")
    return notes


def frechet_name(extractor: Extractor) -> str:
    """FID is the distance by Inception, FD-DINOv2 that by DINOv2; by another extractor it is called so."""
    short = frechet_short(extractor)
    return short if short == FID else f"{short if short == DINOV2 else LONG} ({extractor.name})"


def frechet_short(extractor: Extractor) -> str:
    """The same for the head of a column."""
    if extractor.name.startswith("inception"):
        return FID
    return DINOV2 if extractor.name.startswith("dinov2") else "Frechet"


def score_against_reference(features: Features, reference: Features | Statistics, extractor: Extractor) -> list[Score]:
    """Frechet distance, and where the reference's features are known KID, precision and recall."""
    made_with, by = _made_with(extractor), extractor.origin
    flag = (
        ""
        if len(features) >= RELIABLE_NUM
        else f"N = {len(features)} < {RELIABLE_NUM}: mostly its bias, compare rows only"
    )
    scores = []
    if len(features) >= MIN_JACKKNIFE:
        names = frechet_name(extractor), frechet_short(extractor)
        metric = Metric(FRECHET, *names, higher_is_better=False, made_with=made_with, by=by, flag=flag)
        scores.append(Score(metric, frechet_interval(features, reference)))
    if isinstance(reference, Features) and len(features) >= MIN_PICTURES:
        kid = Metric("kid", f"KID x 1000 ({extractor.name})", "KID x 1000", False, made_with, by)
        scores.append(Score(kid, _times(kernel_distance(features, reference), 1000)))
        found = precision_recall(features, reference)
        for name, value in (("precision", found.precision), ("recall", found.recall)):
            interval = Interval(value, None, None, len(features), "one number over all pictures")
            scores.append(Score(Metric(name, f"{name} ({extractor.name})", name, True, made_with, by), interval))
    return scores


def _times(interval: Interval, factor: float) -> Interval:
    low, high = (None if end is None else factor * end for end in (interval.low, interval.high))
    return Interval(factor * interval.value, low, high, interval.num, interval.method, interval.level)


def _score_text(pictures: PictureSet, baseline: PictureSet, prompts: tuple[str, ...], judge: TextJudge) -> Score:
    values, own = (100 * judge.score(item, prompts) for item in (pictures, baseline))
    kind = f"{judge.short} score"
    metric = Metric(kind, f"{kind} x 100 ({judge.label})", judge.short, True, judge.label, judge.by)
    return Score(metric, mean_interval(values), difference_interval(values, own), values)


def _score_pairs(pictures: PictureSet, baseline: PictureSet, judges: Judges) -> list[Score]:
    one, other = pictures.all_pixels(), baseline.all_pixels()
    found: list[tuple[Metric, Array]] = [
        (Metric("ssim", "SSIM", "SSIM", True, "torchmetrics", is_paired=True), paired_ssim(one, other)),
        (Metric("psnr", "PSNR (dB)", "PSNR", True, "torchmetrics", is_paired=True), paired_psnr(one, other)),
    ]
    if judges.lpips is not None:
        by = judges.lpips.origin
        metric = Metric("lpips", "LPIPS", "LPIPS", False, f"{by.extractor} {by.digest[:12]}", by, is_paired=True)
        found.append((metric, judges.lpips(one, other)))
    scores = [Score(metric, mean_interval(values), None, values) for metric, values in found]
    if judges.images:
        extractor = judges.images[0].extractor
        mine, theirs = (features_of(item, extractor, cache=judges.cache) for item in (pictures, baseline))
        made_with, by = _made_with(extractor), extractor.origin
        cosine = feature_cosine(mine, theirs)
        metric = Metric("cosine", f"feature cosine ({extractor.name})", "cosine", True, made_with, by, is_paired=True)
        scores.append(Score(metric, mean_interval(cosine), None, cosine))
        if len(mine) >= MIN_JACKKNIFE:
            name = f"{frechet_name(extractor)} to baseline"
            metric = Metric(f"{FRECHET} to baseline", name, "to base", False, made_with, by, is_paired=True)
            scores.append(Score(metric, _paired_frechet(mine, theirs)))
    return scores


def _paired_frechet(one: Features, other: Features) -> Interval:
    """The distance of two sets that pair; leaving out a prompt leaves it out of both. Equal features are at 0."""
    if np.array_equal(one.values, other.values):
        return Interval(0.0, 0.0, 0.0, len(one), "equal features")
    return grouped_jackknife(lambda rows: frechet_distance(one.take(rows), other.take(rows)), len(one))
