"""What was measured of a model's trajectories, and of the null's: curves by band, their differences, settling times."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from surgery.metrics.intervals import Interval, difference_interval, mean_interval
from surgery.spectra.bands import Array, Bands

LATENTS, PREDICTED, PICTURES = "latents", "predicted", "pictures"
VIEWS: Mapping[str, str] = {
    LATENTS: "noisy latents x_t",
    PREDICTED: "predicted clean latents",
    PICTURES: "predicted clean pictures, decoded",
}
SETTLED_WITHIN = 0.05  # of the power that a band has at the end
LEAST_POWER = 1e-12  # below it a band holds nothing; so that blank pictures have logarithms


@dataclass(frozen=True, eq=False)
class ViewCurves:
    """One view of N trajectories over T times, the last of them the end: the model's own, and the null's.

    Power in bands is (N, T, 2 + B): first the mean, last what lies beyond the bands. Rings are means over prompts
    (T, R), see `Spectrum`. `side` is the shorter side of the grid.
    """

    name: str
    side: int
    power: Array
    null: Array
    rings: Array
    null_rings: Array

    @property
    def num_bands(self) -> int:
        """How many bands the grid holds."""
        return int(self.power.shape[2]) - 2

    def differences(self) -> Array:
        """log2 of the model's power over the null's, by prompt, time and band (N, T, B)."""
        return np.log2(_in_bands(self.power)) - np.log2(_in_bands(self.null))


@dataclass(frozen=True, eq=False)
class Trajectories:
    """All views of the trajectories of N prompts; `shares` (T,) says where the times lie, 1 noise, 0 the end."""

    bands: Bands
    shares: Array
    views: tuple[ViewCurves, ...]

    @property
    def num_prompts(self) -> int:
        """N."""
        return len(self.views[0].power)


@dataclass(frozen=True)
class Settled:
    """When a band has settled, as a share of the noise range: of the model, of the null, and their difference."""

    view: str
    band: str
    model: Interval
    null: Interval
    difference: Interval


def settling_times(trajectories: Trajectories) -> list[Settled]:
    """For each view of clean pictures and each of its bands."""
    found = []
    for view in trajectories.views:
        if view.name == LATENTS:  # noise to the last step
            continue
        model = settled_at(_in_bands(view.power), trajectories.shares)
        null = settled_at(_in_bands(view.null), trajectories.shares)
        for number in range(view.num_bands):
            own, other = model[:, number], null[:, number]
            found.append(
                Settled(
                    view.name,
                    trajectories.bands.names[number],
                    mean_interval(own),
                    mean_interval(other),
                    difference_interval(own, other),
                )
            )
    return found


def settled_at(power: Array, shares: Array) -> Array:
    """The share of the noise range (N, B) from which on a band's power (N, T, B) stays within 5% of its end.

    Of a band that gets there with the last step alone it is 0.
    """
    ends = power[:, -1:, :]
    is_near = np.abs(power - ends) <= SETTLED_WITHIN * ends
    stays = np.flip(np.logical_and.accumulate(np.flip(is_near, axis=1), axis=1), axis=1)
    found: Array = shares[np.argmax(stays, axis=1)]
    return found


def intervals_of(values: Array) -> tuple[Array, Array, Array]:
    """The mean over the first axis, and the ends of its 95% interval over prompts; NaN where there are none."""
    cells = [mean_interval(column) for column in values.reshape(len(values), -1).T]
    ends = [[np.nan if end is None else end for end in (cell.low, cell.high)] for cell in cells]
    means = np.array([cell.value for cell in cells]).reshape(values.shape[1:])
    low, high = np.array(ends).reshape(-1, 2).T
    return means, low.reshape(means.shape), high.reshape(means.shape)


def _in_bands(power: Array) -> Array:
    """The power in bands alone, nowhere 0."""
    found: Array = np.maximum(power[:, :, 1:-1], LEAST_POWER)
    return found
