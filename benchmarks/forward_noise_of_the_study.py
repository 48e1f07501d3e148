"""Is the frequency figure of the DiT study (data/freq_bands.csv, digitised) a model's, or noise that is added?

    python benchmarks/forward_noise_of_the_study.py

Its mean magnitude in four bands against the timestep is fitted by sqrt(s^2 (1 - abar) + c^2 abar): s the magnitude of
the noise, c that of the clean picture. That is forward noising, x_t = sqrt(abar) x_0 + sqrt(1 - abar) e, and nothing in
it is of a model. White noise of variance 1, averaged over three channels of 128 x 128 pixels, has the mean magnitude
sqrt(pi / 4) 128 / sqrt(3) = 65.5: so large are the fitted s, too.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

Array = NDArray[np.float64]
DATA = Path(__file__).parent / "data" / "freq_bands.csv"
BANDS = ("low", "mid_low", "mid_high", "high")
NOISE = math.sqrt(math.pi / 4) * 128 / math.sqrt(3)


@dataclass(frozen=True)
class Fit:
    """Forward noising as it fits one band: the magnitudes of noise and picture, and the share of variance explained."""

    noise: float
    clean: float
    r_squared: float


def read_study(path: Path = DATA) -> tuple[Array, Mapping[str, Array]]:
    """sqrt(1 - abar) at each timestep, and the magnitude of each band there."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {name: np.array([float(row[name]) for row in rows]) for name in (*BANDS, "sqrt_1m_alphabar")}
    return columns.pop("sqrt_1m_alphabar"), columns


def fit_forward_noise(noise_levels: Array, magnitudes: Array) -> Fit:
    """The least squares fit of s and c to the magnitudes."""

    def curve(levels: Array, noise: float, clean: float) -> Array:
        found: Array = np.sqrt(noise**2 * levels**2 + clean**2 * (1 - levels**2))
        return found

    (noise, clean), _ = curve_fit(curve, noise_levels, magnitudes, p0=(magnitudes.max(), magnitudes.min()))
    left = ((magnitudes - curve(noise_levels, noise, clean)) ** 2).sum()
    return Fit(abs(noise), abs(clean), float(1 - left / ((magnitudes - magnitudes.mean()) ** 2).sum()))


def main() -> None:
    """Print the fit of each band."""
    noise_levels, bands = read_study()
    print(f"{'band':10} {'s':>6} {'c':>6} {'R^2':>8}   (s of white noise: {NOISE:.1f})")
    for name, magnitudes in bands.items():
        fit = fit_forward_noise(noise_levels, magnitudes)
        print(f"{name:10} {fit.noise:6.1f} {fit.clean:6.1f} {fit.r_squared:8.4f}")


if __name__ == "__main__":
    main()
