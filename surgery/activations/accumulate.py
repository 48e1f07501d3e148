"""Sums of rows -> the sums of a profile: by stream, part, and timestep bin; and what is lasting of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.activations.branches import rows_by_branch
from surgery.activations.output_sums import OutputSums
from surgery.activations.row_sums import RowSums
from surgery.errors import InputError
from surgery.profiles.layer_profile import Profile, ProfiledStack, StreamSums, no_sums

Key = tuple[str, str, str]
ALL_TOKENS = "all"
SUMS = ("tokens", "cosine", "token_cosine", "angle", "angles", "residual")


@dataclass(frozen=True)
class MeasuredForward:
    """One forward: by (stack, stream) the sums of each set of tokens, and the branch of each row."""

    streams: Mapping[tuple[str, str], Mapping[str, RowSums]]
    branches: Sequence[str]


class Accumulator:
    """The sums of a run. Its memory grows with the square of the layers and with channels, not with samples.

    With `keep_means` it also holds one state a layer and row of the trajectories at hand.
    """

    def __init__(self, num_bins: int, *, keep_means: bool) -> None:
        self.num_bins = num_bins
        self.keep_means = keep_means
        self.streams: dict[Key, StreamSums] = {}
        self.outputs = OutputSums()
        self._means: dict[Key, list[torch.Tensor]] = {}

    def add(self, measured: MeasuredForward, share: float | Sequence[float]) -> None:
        """Count a forward at this share of the noise range; several are those of its rows."""
        rows = len(measured.branches)
        shares = np.broadcast_to(np.asarray(share, dtype=np.float64), (rows,))
        bins = np.minimum((shares * self.num_bins).astype(int), self.num_bins - 1)
        for (stack, stream), sets in measured.streams.items():
            for name, sums in sets.items():
                for branch, chosen in rows_by_branch(measured.branches).items():
                    part = branch if name == ALL_TOKENS else f"{branch}:{name}"
                    self._add_rows((stack, stream, part), sums, chosen, bins[chosen])

    def _add_rows(self, key: Key, rows: RowSums, chosen: NDArray[np.int_], bins: NDArray[np.int_]) -> None:
        if key not in self.streams:
            self.streams[key] = no_sums(self.num_bins, rows.cosine.shape[1])
        into = self.streams[key]
        is_one_bin = bool((bins == bins[0]).all())  # as in sampling; a sum takes a quarter of the time then
        counted = {name: getattr(rows, name)[chosen] for name in SUMS}
        counted["samples"] = (counted["tokens"] > 0).astype(np.float64)
        for name, values in counted.items():
            if is_one_bin:
                getattr(into, name)[bins[0]] += values.sum(0)
            else:
                np.add.at(getattr(into, name), bins, values)

    def add_states(self, stack: str, stream: str, states: Sequence[torch.Tensor], branches: Sequence[str]) -> None:
        """Add the states of a forward to the means of its trajectories."""
        for branch, chosen in rows_by_branch(branches).items():
            key = (stack, stream, branch)
            if key not in self._means:
                self._means[key] = [torch.zeros(state[chosen].shape, dtype=torch.float64) for state in states]
            for mean, state in zip(self._means[key], states, strict=True):
                mean.add_(state[chosen].cpu().double())

    def finish_trajectory(self) -> None:
        """Compare the mean states of the trajectories at hand, and let them go."""
        for key, means in self._means.items():
            flat = torch.stack([torch.nn.functional.normalize(mean.flatten(1), dim=1) for mean in means], 1)
            sums = self.streams[key]
            sums.mean_cosine[...] += (flat @ flat.mT).clamp(-1, 1).sum(0).numpy()
            sums.trajectories[...] += len(flat)
        self._means.clear()

    def drop_trajectory(self) -> None:
        """Let the mean states of the trajectories at hand go: they were not finished."""
        self._means.clear()

    def profile(self, recipe: Mapping[str, Any], lengths: Mapping[str, int]) -> Profile:
        """What was counted until now; `lengths` are the numbers of blocks of the stacks."""
        names: dict[str, dict[str, None]] = {stack: {} for stack in lengths}
        for stack, stream, _ in self.streams:
            names[stack][stream] = None
        stacks = tuple(
            ProfiledStack(stack, lengths[stack], tuple(streams)) for stack, streams in names.items() if streams
        )
        copies = {key: sums + no_sums(self.num_bins, sums.num_states) for key, sums in self.streams.items()}
        components = self.outputs.moments()
        for (component, stream, _), moments in components.items():
            if not np.isfinite(moments.squares).all():
                raise InputError(f"the output {stream} of {component} had values that are no finite numbers")
        return Profile(recipe, stacks, self.num_bins, copies, components)
