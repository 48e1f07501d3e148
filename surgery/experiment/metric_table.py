"""All metrics of an evaluation, as data: table, figure, JSON, notes and `--help` follow from METRICS.

A metric is added here and nowhere else. Nothing heavy is loaded with this module, as `--help` lists what is in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from surgery.metrics.num_pictures import MIN_JACKKNIFE, NUM_NEIGHBOURS, RELIABLE_NUM, RELIABLE_SETS
from surgery.text_table import lay_out

if TYPE_CHECKING:
    import torch

    from surgery.experiment.beside_real import BesideReal
    from surgery.experiment.jury import Array
    from surgery.experiment.latency import Latency
    from surgery.metrics.feature_sets import Features
    from surgery.metrics.intervals import Interval
    from surgery.metrics.paired import Lpips

REAL_FEATURES = "features of real pictures, not their statistics alone"
FIRST_EXTRACTOR = "the first extractor"
ROOM_FOR_WINDOW = "pictures that SSIM's window fits into"
HELP_WIDTH = 78
LATENCY = "latency"
BY_CHANCE = "so few pictures score better or worse by chance"


class Sight(Enum):
    """What is looked at: what pictures are measured against, and what that takes."""

    REAL = "real pictures", "an extractor"
    REAL_BY_CLIP = "real pictures", "--cmmd and a CLIP"
    TEXT = "the text", "a CLIP"
    PIXELS = "the baseline", ""
    LPIPS = "the baseline", "lpips and its backbone"
    FEATURES = "the baseline", "an extractor"
    PREDICTIONS = "the baseline's predictions", ""
    TRUTH = "the truth", "captions with their pictures"
    LATENCY = "the machine", "--latency"
    MEMORY = "the machine", "--latency on a GPU"

    @property
    def against(self) -> str:
        """What the pictures, or the predictions, are measured against."""
        return self.value[0]

    @property
    def takes(self) -> str:
        """Who must be there to look, or what must be known."""
        return self.value[1]


@dataclass(frozen=True)
class Measured:
    """A number with its interval; its difference to the baseline's, prompt by prompt; one value a prompt (N,)."""

    interval: "Interval"
    difference: "Interval | None" = None
    values: "Array | None" = None


@dataclass(frozen=True)
class MetricKind:
    """A metric, whoever judges by it.

    `kind` is its key, `title` what it is called in lists, `name` and `head` in full and short with the words of a
    judge in braces. `score` makes it from what its sight shows. It is left out for fewer pictures than `min_pictures`
    and by judges that do not give what is in `needs`; below `reliable_from` it is flagged by its `doubt`. Of real
    pictures it takes `min_real`. `is_paired` says that it compares each picture with the baseline's of the same prompt
    and seed.
    """

    kind: str
    title: str
    name: str
    head: str
    sight: Sight
    score: Callable[..., Measured]
    higher_is_better: bool = False
    is_paired: bool = False
    needs: frozenset[str] = frozenset()
    min_pictures: int = 1
    min_real: int = 1
    reliable_from: int = 1
    doubt: str = "mostly its bias, compare rows only"
    made_with: str = ""


def _mean(values: "Array", baseline: "Array | None" = None) -> Measured:
    from surgery.metrics.intervals import difference_interval, mean_interval

    return Measured(mean_interval(values), None if baseline is None else difference_interval(values, baseline), values)


def _frechet(seen: "BesideReal") -> Measured:
    from surgery.metrics.frechet import frechet_interval

    return Measured(frechet_interval(seen.drawn, seen.real))


def _kid(seen: "BesideReal") -> Measured:
    from surgery.metrics.kernel_distance import kernel_distance

    return Measured(kernel_distance(seen.drawn, seen.features).times(1000))


def _precision(seen: "BesideReal") -> Measured:
    return _over_all(seen.precision_recall.precision, len(seen.drawn))


def _recall(seen: "BesideReal") -> Measured:
    return _over_all(seen.precision_recall.recall, len(seen.drawn))


def _over_all(value: float, num: int) -> Measured:
    from surgery.metrics.intervals import Interval

    return Measured(Interval(value, None, None, num, "one number over all pictures"))


def _cmmd(seen: "BesideReal") -> Measured:
    from surgery.metrics.kernel_distance import cmmd

    return Measured(cmmd(seen.drawn, seen.features))


def _ssim(pictures: "torch.Tensor", baseline: "torch.Tensor") -> Measured:
    from surgery.metrics.paired import paired_ssim

    return _mean(paired_ssim(pictures, baseline))


def _psnr(pictures: "torch.Tensor", baseline: "torch.Tensor") -> Measured:
    from surgery.metrics.paired import paired_psnr

    return _mean(paired_psnr(pictures, baseline))


def _lpips(lpips: "Lpips", pictures: "torch.Tensor", baseline: "torch.Tensor") -> Measured:
    return _mean(lpips(pictures, baseline))


def _cosine(pictures: "Features", baseline: "Features") -> Measured:
    from surgery.metrics.paired import feature_cosine

    return _mean(feature_cosine(pictures, baseline))


def _paired_frechet(pictures: "Features", baseline: "Features") -> Measured:
    from surgery.metrics.frechet import paired_frechet_interval

    return Measured(paired_frechet_interval(pictures, baseline))


def _error(errors: "Array", baseline: "Array | None" = None) -> Measured:
    return _mean(errors.mean(1), None if baseline is None else baseline.mean(1))


def _latency(found: "Latency") -> Measured:
    from surgery.metrics.intervals import Interval, median_interval

    if found.seconds is found.baseline:
        return Measured(Interval(100.0, None, None, len(found.seconds), "the baseline itself"))
    return Measured(median_interval(100 * found.seconds / found.baseline))


def _peak(peak_bytes: int) -> Measured:
    from surgery.metrics.intervals import Interval

    return Measured(Interval(peak_bytes / 1e9, None, None, 1, "of one run"))


FIRST_WITH_FEATURES = frozenset({FIRST_EXTRACTOR, REAL_FEATURES})
METRICS: tuple[MetricKind, ...] = (
    MetricKind(
        *("frechet", "Frechet distances", "{frechet}", "{frechet_head}", Sight.REAL, _frechet),
        min_pictures=MIN_JACKKNIFE,
        reliable_from=RELIABLE_NUM,
    ),
    MetricKind(
        *("kid", "KID", "KID x 1000 ({extractor})", "KID x 1000", Sight.REAL, _kid),
        needs=FIRST_WITH_FEATURES,
        reliable_from=RELIABLE_SETS,
        doubt=BY_CHANCE,
        min_pictures=NUM_NEIGHBOURS + 1,  # it takes one fewer, and comes with the two below
    ),
    MetricKind(
        *("precision", "precision", "precision ({extractor})", "precision", Sight.REAL, _precision),
        higher_is_better=True,
        needs=FIRST_WITH_FEATURES,
        reliable_from=RELIABLE_SETS,
        doubt=BY_CHANCE,
        min_pictures=NUM_NEIGHBOURS + 1,
        min_real=NUM_NEIGHBOURS + 1,
    ),
    MetricKind(
        *("recall", "recall", "recall ({extractor})", "recall", Sight.REAL, _recall),
        higher_is_better=True,
        needs=FIRST_WITH_FEATURES,
        reliable_from=RELIABLE_SETS,
        doubt=BY_CHANCE,
        min_pictures=NUM_NEIGHBOURS + 1,
        min_real=NUM_NEIGHBOURS + 1,
    ),
    MetricKind(
        *("cmmd", "CMMD", "CMMD ({extractor})", "CMMD", Sight.REAL_BY_CLIP, _cmmd), needs=frozenset({REAL_FEATURES})
    ),
    MetricKind(
        *("{judge} score", "CLIP score, HPSv2.1", "{judge} score x 100 ({label})", "{judge}", Sight.TEXT, _mean),
        higher_is_better=True,
    ),
    MetricKind(
        *("ssim", "SSIM", "SSIM", "SSIM", Sight.PIXELS, _ssim),
        needs=frozenset({ROOM_FOR_WINDOW}),
        higher_is_better=True,
        is_paired=True,
        made_with="surgery, Wang et al. 2004",
    ),
    MetricKind(
        *("psnr", "PSNR", "PSNR (dB)", "PSNR", Sight.PIXELS, _psnr),
        higher_is_better=True,
        is_paired=True,
        made_with="surgery, 10 log10(255^2 / MSE)",
    ),
    MetricKind("lpips", "LPIPS", "LPIPS", "LPIPS", Sight.LPIPS, _lpips, is_paired=True),
    MetricKind(
        *("cosine", "cosine of features", "feature cosine ({extractor})", "cosine", Sight.FEATURES, _cosine),
        higher_is_better=True,
        is_paired=True,
    ),
    MetricKind(
        *("frechet to baseline", "Frechet distance", "{frechet} to baseline", "to base"),
        *(Sight.FEATURES, _paired_frechet),
        is_paired=True,
        min_pictures=MIN_JACKKNIFE,
    ),
    MetricKind(
        *("denoising error", "denoising error", "denoising error", "denoise", Sight.PREDICTIONS, _error),
        is_paired=True,
    ),
    MetricKind(
        *("denoising error to the truth", "denoising error to the truth", "denoising error to the truth", "to truth"),
        *(Sight.TRUTH, _error),
    ),
    MetricKind(
        *(LATENCY, "latency of a step", "latency of a step (% of the baseline's, {device})", "latency, %"),
        *(Sight.LATENCY, _latency),
        made_with="samplings of one picture in turn with the baseline's, the transformer alone",
    ),
    MetricKind(
        *("peak memory", "peak memory", "peak memory beyond the weights (GB, {device})", "peak GB"),
        *(Sight.MEMORY, _peak),
        made_with="one sampling of one picture",
    ),
)


def list_metrics() -> str:
    """A line for each metric: what pictures are measured against, by whom, and how many there must be."""
    rows = [["against", "metric", "better", "prompts", "by"]]
    for metric in METRICS:
        against, better = metric.sight.against, "higher" if metric.higher_is_better else "lower"
        rows.append([against, metric.title, better, str(metric.min_pictures), metric.sight.takes])
    return lay_out(rows, right={3}, wrap={1, 4}, width=HELP_WIDTH)


def titles_text(metrics: list[MetricKind]) -> str:
    """`KID, precision and recall`."""
    *titles, last = dict.fromkeys(metric.title for metric in metrics)
    return f"{', '.join(titles)} and {last}" if titles else last
