"""Heat maps of angular distances, (bins, layers), as the SD3.5 study draws and weighs them. Empty bins are rows of NaN.

The study's steps: `clip_at_percentile` at 95 for pictures and at 90 for contributions; `outliers` beyond two standard
deviations left out; and `combine_streams` of text and image, where the text stream may end early. Its logarithmic
pictures have log(1 + d) beneath logarithmic colours; here there are the colours alone, whose scale is in units of pi.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from surgery.errors import InputError
from surgery.profiles.layer_profile import Array

CLIP_PERCENTILE = 95.0  # of the study's pictures; its contributions are clipped at 90
Z_LIMIT = 2.0


def percentile(heatmap: Array, percent: float = CLIP_PERCENTILE) -> float:
    """The value that `percent` % of all cells do not exceed (linear interpolation); NaN cells do not count."""
    return float(np.nanpercentile(heatmap, percent))


def clip_at_percentile(heatmap: Array, percent: float = CLIP_PERCENTILE) -> Array:
    """Values above the percentile of all cells become that percentile; NaN stays."""
    return np.clip(heatmap, None, percentile(heatmap, percent))


def z_scores(heatmap: Array) -> Array:
    """How many standard deviations (of all cells, ddof 0) each cell is from the mean; 0 where all cells are equal."""
    spread = np.nanstd(heatmap)
    if not spread > 0:
        return np.where(np.isnan(heatmap), np.nan, 0.0)
    return (heatmap - np.nanmean(heatmap)) / spread


def outliers(heatmap: Array, limit: float = Z_LIMIT) -> NDArray[np.bool_]:
    """Which cells are more than `limit` standard deviations from the mean; NaN cells are none."""
    return np.abs(z_scores(heatmap)) > limit


def without_outliers(heatmap: Array, limit: float = Z_LIMIT) -> Array:
    """The outliers as NaN."""
    return np.where(outliers(heatmap, limit), np.nan, heatmap)


def combine_streams(heatmaps: Sequence[Array], weights: Sequence[float] | None = None) -> Array:
    """The mean over streams of weight x heat map, over the layers that all of them have (bins, fewest layers).

    Without weights each counts once. The sum is divided by the number of streams, not of the weights, as in the study.

    Raises:
        InputError: there is none, or their bins differ.
    """
    if not heatmaps:
        raise InputError("no heat map was given")
    bins = sorted({heatmap.shape[0] for heatmap in heatmaps})
    if len(bins) > 1:
        raise InputError(f"the streams have {' and '.join(map(str, bins))} timestep bins; they must have equally many")
    num_layers = min(heatmap.shape[1] for heatmap in heatmaps)
    scales = [1.0] * len(heatmaps) if weights is None else weights
    parts = [heatmap[:, :num_layers] * scale for heatmap, scale in zip(heatmaps, scales, strict=True)]
    return np.sum(parts, axis=0) / len(parts)
