"""FID of 2048 channels, 1000 pictures against the statistics of 5000, against the textbook's formula in NumPy.

Aims: below 0.5 s once the reference's statistics are known, and the same to 1e-6 as by singular values. The spectrum
falls like Inception's. The textbook's formula is printed beside: its own rounding is the larger.
"""

import numpy as np
from pairs import median_seconds

from surgery.metrics.feature_sets import Features, Origin, Statistics, statistics_of
from surgery.metrics.frechet import frechet_distance, frechet_interval
from surgery.metrics.kernel_distance import kernel_distance, kernel_reference

CHANNELS, NUM, NUM_REFERENCE = 2048, 1000, 5000


def make_features(num: int, seed: int, shift: float) -> Features:
    """Features whose spectrum falls as a power."""
    mix = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS)) / np.sqrt(CHANNELS)
    scales = np.arange(1, CHANNELS + 1) ** -0.7
    values = (np.random.default_rng(seed).standard_normal((num, CHANNELS)) * scales) @ mix + shift
    return Features(values.astype(np.float32), Origin())


def textbook(one: Statistics, other: Statistics) -> float:
    """|m1 - m2|^2 + tr S1 + tr S2 - 2 sum sqrt(eigenvalues of S1 S2)."""
    eigenvalues = np.linalg.eigvals(one.covariance @ other.covariance).astype(complex)
    traces = np.trace(one.covariance) + np.trace(other.covariance)
    step = one.mean - other.mean
    return float(step @ step + traces - 2 * np.sqrt(eigenvalues).real.sum())


def singular(one: Features, other: Statistics) -> float:
    """The same by singular values, which are not squared on the way."""
    values = one.values.astype(np.float64)
    root = (values - values.mean(0)) / np.sqrt(len(values) - 1)
    found = np.linalg.svd(root @ np.linalg.cholesky(other.covariance), compute_uv=False)
    step = values.mean(0) - other.mean
    return float(step @ step + (root**2).sum() + np.trace(other.covariance) - 2 * found.sum())


def main() -> None:
    """Print times and errors."""
    pictures, reference = make_features(NUM, 1, 0.02), make_features(NUM_REFERENCE, 2, 0.0)
    known, kernels = statistics_of(reference), kernel_reference(reference)
    own = statistics_of(pictures)
    found, exact = frechet_distance(pictures, known), singular(pictures, known)
    print(f"off by {abs(found / exact - 1):.1e}; the textbook's formula by {abs(textbook(own, known) / exact - 1):.1e}")
    seconds = median_seconds(
        {
            "Frechet distance": lambda: frechet_distance(pictures, known),
            "with the jackknife over 20 groups": lambda: frechet_interval(pictures, known),
            "KID with its interval": lambda: kernel_distance(pictures, kernels),
        },
        rounds=3,
    )
    seconds |= median_seconds({"the textbook's formula": lambda: textbook(own, known)}, rounds=1, warmup=0)
    for name, taken in seconds.items():
        print(f"{name}: {taken:.2f} s")


if __name__ == "__main__":
    main()
