"""Bands of spatial frequency, in cycles per picture, so that latents and the pictures that they decode to compare.

A frequency is how often a wave repeats along the shorter side of the picture, whatever the number of samples. A grid of
H x W samples has frequencies up to its Nyquist limit, min(H, W) / 2, in every direction; beyond it only diagonal waves.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surgery.errors import InputError

Array = NDArray[np.float64]
FIRST_EDGE = 2.0  # cycles per picture: of the lowest band of the octaves
MEAN, BEYOND = "mean", "beyond"


@dataclass(frozen=True)
class Bands:
    """Bands by their upper edges in cycles per picture: (0, e_0), [e_0, e_1), ..., the last with its upper edge."""

    edges: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.edges)

    @property
    def names(self) -> list[str]:
        """`0-2`, `2-4`, ...: cycles per picture."""
        return [f"{low:g}-{high:g}" for low, high in itertools.pairwise((0.0, *self.edges))]

    def within(self, nyquist: float) -> int:
        """How many of the bands a grid of this Nyquist limit holds whole."""
        return sum(edge <= nyquist for edge in self.edges)

    def places(self, frequencies: Array, nyquist: float) -> NDArray[np.intp]:
        """The band of each frequency: 0 the mean, 1 to B the bands that are held whole, B + 1 what lies beyond them."""
        kept = self.edges[: self.within(nyquist)]
        places = 1 + np.searchsorted(kept, frequencies, side="right")
        if kept:
            places[frequencies == kept[-1]] = len(kept)
        places[frequencies == 0] = 0
        return places


def frequencies_of(height: int, width: int) -> Array:
    """The frequency of each coefficient of a two-dimensional FFT (height, width), in cycles per picture."""
    side = min(height, width)
    rows, columns = np.fft.fftfreq(height) * side, np.fft.fftfreq(width) * side
    found: Array = np.hypot(rows[:, None], columns[None, :])
    return found


def octave_bands(nyquist: float, count: int | None = None) -> Bands:
    """Octaves down from the Nyquist limit; so many of them, of which the lowest takes all that lies below.

    Raises:
        InputError: there is no room for so many.
    """
    most = max(1, int(np.floor(np.log2(max(nyquist, 1) / FIRST_EDGE))) + 1)
    if count is not None and not 1 <= count <= most:
        raise InputError(
            f"{count} octaves do not fit below the Nyquist limit of {nyquist:g} cycles per picture; write --bands 1 to "
            f"{most}, or the edges themselves, as --bands {_shown(octave_bands(nyquist).edges)}"
        )
    return Bands(tuple(nyquist / 2.0**number for number in reversed(range(count or most))))


def read_bands(text: str | None, nyquist: float) -> Bands:
    """What `--bands` says: how many octaves, or upper edges in cycles per picture; without it as many octaves as fit.

    Raises:
        InputError: it is neither, or no frequency of the picture is in a band.
    """
    if text is None or not text.strip():
        return octave_bands(nyquist)
    try:
        if "," not in text:
            return octave_bands(nyquist, int(text))
        edges = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f'--bands takes a number of octaves, or upper edges in cycles per picture, not "{text}"; write --bands 4, '
            f"or --bands {_shown(octave_bands(nyquist).edges)}"
        ) from None
    refuse_edges(edges, nyquist)
    return Bands(edges)


def refuse_edges(edges: Sequence[float], nyquist: float) -> None:
    """Raise InputError where edges do not rise, or the picture has no frequencies so high."""
    rising = all(low < high for low, high in itertools.pairwise((0.0, *edges)))
    if not rising or not np.isfinite(edges).all():
        raise InputError(
            f"the edges of bands rise from above 0, and {_shown(edges)} do not; write them like --bands 2,4,8,16"
        )
    if edges[-1] > nyquist:
        raise InputError(
            f"a band ends at {edges[-1]:g} cycles per picture, and the pictures have {nyquist:g} at most (their "
            f"Nyquist limit, half of their shorter side); write edges up to {nyquist:g}"
        )
    for low, high in itertools.pairwise((0.0, *edges)):
        is_last = high == edges[-1]
        lowest = next((f for f in _first_frequencies(nyquist) if f >= low and f > 0), np.inf)
        if lowest > high or (lowest == high and not is_last):
            raise InputError(
                f"no frequency of the picture lies from {low:g} to {high:g} cycles; write wider bands, like "
                "--bands 2,4,8"
            )


def refuse_bands_above(bands: Bands, side: int) -> None:
    """Raise InputError where latents of this side hold not one of the bands whole."""
    if not bands.within(side / 2):
        raise InputError(
            f"latents of side {side} have {side / 2:g} cycles per picture at most, and the lowest band ends at "
            f"{bands.edges[0]:g}; write a first edge of {side / 2:g} or less, as "
            f"--bands {side / 2:g},{_shown(bands.edges)}"
        )


def _first_frequencies(nyquist: float) -> Array:
    """All frequencies of a square picture with this Nyquist limit, rising."""
    side = int(2 * nyquist)
    return np.unique(frequencies_of(side, side))


def _shown(edges: Sequence[float]) -> str:
    return ",".join(f"{edge:g}" for edge in edges)
