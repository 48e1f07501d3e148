"""Pictures of a row -> its numbers, each with an interval: against real pictures, the text, and the baseline."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.evaluate.extractors import Extractor
from surgery.evaluate.feature_cache import features_of
from surgery.evaluate.feature_sets import Features, Statistics
from surgery.evaluate.frechet import RELIABLE_NUM, frechet_distance, frechet_interval
from surgery.evaluate.intervals import Interval, difference_interval, grouped_jackknife, mean_interval
from surgery.evaluate.kernel_distance import kernel_distance
from surgery.evaluate.paired import feature_cosine, paired_psnr, paired_ssim
from surgery.evaluate.pictures import PictureSet
from surgery.evaluate.precision_recall import precision_recall

Array = NDArray[np.float64]
MIN_JACKKNIFE = 40  # pictures, for twenty groups


@dataclass(frozen=True)
class Metric:
    """What a number is called (`short` in tables), whether more of it is better, and what it was made with.

    `is_paired` says that it compares each picture with the baseline's of the same prompt and seed.
    """

    name: str
    short: str
    higher_is_better: bool
    made_with: str
    is_paired: bool = False
    flag: str = ""


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
            "higher_is_better": self.metric.higher_is_better,
            "made_with": self.metric.made_with,
            "paired_with_the_baseline": self.metric.is_paired,
            **({"flag": self.metric.flag} if self.metric.flag else {}),
            **({"difference_to_baseline": self.difference.to_json()} if self.difference else {}),
        }


@dataclass(frozen=True)
class Judges:
    """What scores pictures. `text_score` gives the cosine of each picture with its prompt (N,)."""

    extractor: Extractor | None
    reference: Features | Statistics | None
    text_score: Callable[[PictureSet, tuple[str, ...]], Array] | None
    text_judge: str
    lpips: Callable[..., Array] | None
    cache: Path


def score_row(pictures: PictureSet, baseline: PictureSet, prompts: tuple[str, ...], judges: Judges) -> list[Score]:
    """All numbers of a row that come from its pictures. Controls of other noise pair by prompt alone."""
    scores: list[Score] = []
    if judges.extractor is not None:
        features = features_of(pictures, judges.extractor, cache=judges.cache)
        if judges.reference is not None:
            scores += score_against_reference(features, judges.reference, judges.extractor)
    if judges.text_score is not None:
        scores.append(_score_text(pictures, baseline, prompts, judges))
    return scores + _score_pairs(pictures, baseline, judges)


def frechet_name(extractor: Extractor) -> str:
    """FID is the distance by Inception; by another extractor it is called so."""
    return "FID" if extractor.name.startswith("inception") else f"Frechet distance ({extractor.name})"


def frechet_short(extractor: Extractor) -> str:
    """The same for the head of a column."""
    return "FID" if extractor.name.startswith("inception") else "Frechet"


def score_against_reference(features: Features, reference: Features | Statistics, extractor: Extractor) -> list[Score]:
    """Frechet distance, and where the reference's features are known KID, precision and recall."""
    made_with = f"{extractor.name} {extractor.digest[:12]}, {extractor.resize}"
    flag = (
        ""
        if len(features) >= RELIABLE_NUM
        else f"N = {len(features)} < {RELIABLE_NUM}: mostly its bias, compare rows only"
    )
    scores = []
    if len(features) >= MIN_JACKKNIFE:
        metric = Metric(frechet_name(extractor), frechet_short(extractor), False, made_with, flag=flag)
        scores.append(Score(metric, frechet_interval(features, reference)))
    if isinstance(reference, Features):
        kid = Metric(f"KID x 1000 ({extractor.name})", "KID", False, made_with)
        scores.append(Score(kid, _times(kernel_distance(features, reference), 1000)))
        found = precision_recall(features, reference)
        for name, value in (("precision", found.precision), ("recall", found.recall)):
            interval = Interval(value, None, None, len(features), "one number over all pictures")
            scores.append(Score(Metric(f"{name} ({extractor.name})", name, True, made_with), interval))
    return scores


def _times(interval: Interval, factor: float) -> Interval:
    low, high = (None if end is None else factor * end for end in (interval.low, interval.high))
    return Interval(factor * interval.value, low, high, interval.num, interval.method, interval.level)


def _score_text(pictures: PictureSet, baseline: PictureSet, prompts: tuple[str, ...], judges: Judges) -> Score:
    assert judges.text_score is not None, "asked for by the caller"
    values = 100 * judges.text_score(pictures, prompts)
    own = 100 * judges.text_score(baseline, prompts)
    metric = Metric(f"text score x 100 ({judges.text_judge})", "text", True, judges.text_judge)
    return Score(metric, mean_interval(values), difference_interval(values, own), values)


def _score_pairs(pictures: PictureSet, baseline: PictureSet, judges: Judges) -> list[Score]:
    one, other = pictures.all_pixels(), baseline.all_pixels()
    found: list[tuple[Metric, Array]] = [
        (Metric("SSIM", "SSIM", True, "torchmetrics", is_paired=True), paired_ssim(one, other)),
        (Metric("PSNR (dB)", "PSNR", True, "torchmetrics", is_paired=True), paired_psnr(one, other)),
    ]
    if judges.lpips is not None:
        found.append((Metric("LPIPS", "LPIPS", False, "lpips", is_paired=True), judges.lpips(one, other)))
    scores = [Score(metric, mean_interval(values), None, values) for metric, values in found]
    if judges.extractor is not None:
        mine, theirs = (features_of(item, judges.extractor, cache=judges.cache) for item in (pictures, baseline))
        made_with = f"{judges.extractor.name} {judges.extractor.digest[:12]}"
        cosine = feature_cosine(mine, theirs)
        metric = Metric(f"feature cosine ({judges.extractor.name})", "cosine", True, made_with, is_paired=True)
        scores.append(Score(metric, mean_interval(cosine), None, cosine))
        if len(mine) >= MIN_JACKKNIFE:
            name = f"{frechet_name(judges.extractor)} to baseline"
            scores.append(
                Score(Metric(name, "to base", False, made_with, is_paired=True), _paired_frechet(mine, theirs))
            )
    return scores


def _paired_frechet(one: Features, other: Features) -> Interval:
    """The distance of two sets that pair; leaving out a prompt leaves it out of both. Equal features are at 0."""
    if np.array_equal(one.values, other.values):
        return Interval(0.0, 0.0, 0.0, len(one), "equal features")
    return grouped_jackknife(lambda rows: frechet_distance(one.take(rows), other.take(rows)), len(one))
