"""Sums of rows -> the sums of a profile: by stream, part, and timestep bin; and what is lasting of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.activations.row_sums import RowMoments, RowSums
from surgery.profiles.layer_profile import Moments, Profile, ProfiledStack, StreamSums, no_sums

Key = tuple[str, str, str]
ALL_TOKENS = "all"


@dataclass(frozen=True)
class Measured:
    """One forward: by (stack, stream) the sums of each set of tokens, by (component, stream) the moments of outputs."""

    streams: Mapping[tuple[str, str], Mapping[str, RowSums]]
    moments: Sequence[tuple[str, str, RowMoments]]
    branches: Sequence[str]


class Accumulator:
    """The sums of a run. Its memory grows with the square of the layers and with channels, not with samples.

    With `keep_means` it also holds one state a layer and row of the trajectories at hand.
    """

    def __init__(self, num_bins: int, *, keep_means: bool) -> None:
        self.num_bins = num_bins
        self.keep_means = keep_means
        self.streams: dict[Key, StreamSums] = {}
        self.components: dict[Key, Moments] = {}
        self._means: dict[Key, list[torch.Tensor]] = {}

    def resume(self, profile: Profile) -> None:
        """Go on from what was counted before."""
        self.streams = dict(profile.streams)
        self.components = dict(profile.components)

    def add(self, measured: Measured, share: float | Sequence[float]) -> None:
        """Count a forward at this share of the noise range; several are those of its rows."""
        rows = len(measured.branches)
        shares = np.broadcast_to(np.asarray(share, dtype=np.float64), (rows,))
        bins = np.minimum((shares * self.num_bins).astype(int), self.num_bins - 1)
        for (stack, stream), sets in measured.streams.items():
            for name, sums in sets.items():
                for branch, chosen in _rows_by_branch(measured.branches).items():
                    part = branch if name == ALL_TOKENS else f"{branch}:{name}"
                    self._add_rows((stack, stream, part), sums, chosen, bins[chosen])
        for component, stream, moments in measured.moments:
            for branch, chosen in _rows_by_branch(measured.branches).items():
                key = (component, stream, branch)
                joined = _join_rows(moments, chosen)
                self.components[key] = self.components[key] + joined if key in self.components else joined

    def _add_rows(self, key: Key, rows: RowSums, chosen: NDArray[np.int_], bins: NDArray[np.int_]) -> None:
        if key not in self.streams:
            self.streams[key] = no_sums(self.num_bins, rows.cosine.shape[1])
        into = self.streams[key]
        np.add.at(into.samples, bins, (rows.tokens.numpy()[chosen] > 0).astype(np.float64))
        for name in ("tokens", "cosine", "token_cosine", "angle", "angles", "residual"):
            np.add.at(getattr(into, name), bins, getattr(rows, name).numpy()[chosen])

    def add_states(self, stack: str, stream: str, states: Sequence[torch.Tensor], branches: Sequence[str]) -> None:
        """Add the states of a forward to the means of its trajectories."""
        for branch, chosen in _rows_by_branch(branches).items():
            key = (stack, stream, branch)
            if key not in self._means:
                self._means[key] = [torch.zeros(state[chosen].shape, dtype=torch.float64) for state in states]
            for mean, state in zip(self._means[key], states, strict=True):
                mean += state[chosen].cpu()

    def finish_trajectory(self) -> None:
        """Compare the mean states of the trajectories at hand, and let them go."""
        for key, means in self._means.items():
            flat = torch.stack([torch.nn.functional.normalize(mean.flatten(1), dim=1) for mean in means], 1)
            sums = self.streams[key]
            sums.mean_cosine[...] += (flat @ flat.mT).clamp(-1, 1).sum(0).numpy()
            sums.trajectories[...] += len(flat)
        self._means.clear()

    def profile(self, recipe: Mapping[str, Any], lengths: Mapping[str, int]) -> Profile:
        """What was counted until now; `lengths` are the numbers of blocks of the stacks."""
        names: dict[str, dict[str, None]] = {stack: {} for stack in lengths}
        for stack, stream, _ in self.streams:
            names[stack][stream] = None
        stacks = tuple(
            ProfiledStack(stack, lengths[stack], tuple(streams)) for stack, streams in names.items() if streams
        )
        return Profile(recipe, stacks, self.num_bins, dict(self.streams), dict(self.components))


def _rows_by_branch(branches: Sequence[str]) -> dict[str, NDArray[np.int_]]:
    array = np.asarray(branches)
    return {branch: np.flatnonzero(array == branch) for branch in dict.fromkeys(branches)}


def _join_rows(moments: RowMoments, chosen: NDArray[np.int_]) -> Moments:
    """The moments of several rows together, from each row's (as Moments are added, all at once)."""
    count, mean, squares = (value.numpy()[chosen] for value in (moments.count, moments.mean, moments.squares))
    total = float(count.sum())
    joined = (count[:, None] * mean).sum(0) / max(total, 1)
    return Moments(total, joined, squares.sum(0) + (count[:, None] * (mean - joined) ** 2).sum(0))
