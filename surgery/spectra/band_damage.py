"""What surgery has done to bands of frequency, prompt by prompt, as data; `compare_pictures` measures it.

What the painters' study (arXiv 2407.09298) calls layout is in the low bands, fine detail in the high ones.
"""

from dataclasses import dataclass

from surgery.metrics.intervals import Interval, mean_interval
from surgery.spectra.bands import Array


@dataclass(frozen=True, eq=False)
class BandDamage:
    """Of one view of a row, by prompt and band (N, B): how far it differs from the baseline (0 equal, 1 as two
    unrelated pictures), and how much more power the band has (log2; 0 as much, -1 half).
    """

    difference: Array
    change: Array


def lean(damage: BandDamage) -> Interval | None:
    """Detail minus layout: the mean difference in the upper half of the bands less that in the lower half, over 0 where
    detail suffers more; None of a single band. What it is by chance, the row of other noise says.
    """
    half = damage.difference.shape[1] // 2
    if not half:
        return None
    return mean_interval(damage.difference[:, -half:].mean(axis=1) - damage.difference[:, :half].mean(axis=1))
