"""The layers of a stack in contiguous groups (first, middle, last), from how alike their outputs are.

Kernel change-point detection (Harchaoui and Cappe 2007): of all ways to cut the blocks 0 to L - 1 into runs, the one of
least cost, found exactly by dynamic programming. The kernel K_ij is the mean over streams of the cosine similarity of
the outputs of blocks i and j, and a run G costs

    sum_{i in G} K_ii - 1/|G| sum_{i, j in G} K_ij

which is the scatter of its members around their mean, in the space where K is the inner product. How many groups there
are is given, or chosen by the largest mean silhouette width (Rousseeuw 1987) with the distance 1 - K_ij.

Layers of a residual stream drift, and a steady drift without any groups has a large silhouette too (0.5 to 0.8, most of
it with two groups). So the width is told beside that of an even drift: the same cut of the kernel whose entries are the
means of K along its diagonals, where only the distance of two layers counts and not where they are.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from surgery.errors import InputError
from surgery.profiles.layer_profile import Array, Profile
from surgery.spec.nearest import unknown_text
from surgery.spec.selector import indices_to_text

NumGroups = int | Literal["auto"]
DEFAULT_GROUPS = 3
AUTO_GROUPS = range(2, 9)  # what `auto` chooses from
TIE = 1e-12  # costs nearer than this are equal, and the earlier boundary is taken


@dataclass(frozen=True)
class LayerGroups:
    """A stack cut into runs of neighbours; `starts[k]` is the first block of run k, `starts[0]` is 0.

    `streams` are those whose similarity was looked at. `silhouette` is the mean silhouette width, from -1 to 1: how
    much nearer a layer is to its own group than to the next best; `even_drift` what it would be without groups.
    """

    stack: str
    num_blocks: int
    starts: tuple[int, ...]
    streams: tuple[str, ...]
    silhouette: float
    even_drift: float

    @property
    def runs(self) -> tuple[range, ...]:
        """The blocks of each run."""
        return tuple(map(range, self.starts, (*self.starts[1:], self.num_blocks)))

    @property
    def names(self) -> tuple[str, ...]:
        """Of each run: `first`, `middle` (or `middle-1`, `middle-2`, ...) and `last`."""
        num_inner = len(self.starts) - 2
        inner = ["middle"] if num_inner == 1 else [f"middle-{number + 1}" for number in range(num_inner)]
        return ("first", *inner, "last")

    @property
    def by_name(self) -> Mapping[str, range]:
        """Each run by its name; with several inner ones, `middle` is all of them."""
        found = dict(zip(self.names, self.runs, strict=True))
        if len(self.starts) > 3:
            found["middle"] = range(self.starts[1], self.starts[-1])
        return found

    def find(self, name: str) -> range:
        """The blocks of a group; raises InputError where there is none of this name."""
        found = self.by_name
        if name not in found:
            raise InputError(unknown_text("group", name, found, f"in {self.stack}"))
        return found[name]

    def selector(self, name: str) -> str:
        """A group as a spec writes it: `transformer_blocks[4:15]`."""
        return f"{self.stack}[{indices_to_text(self.find(name))}]"


def find_groups(
    profile: Profile, stack: str, *, stream: str | None = None, num_groups: NumGroups = DEFAULT_GROUPS
) -> LayerGroups:
    """The groups of a stack, over all its streams or one of them.

    A block whose output is not in every stream (the last of SD3 returns no text) joins the last group.

    Raises:
        InputError: there is no such stack or stream, nothing was counted, or the stack has fewer blocks than groups.
    """
    if profile.has_only_angles:
        raise InputError(f"the profile holds no similarities, by which {stack} could be cut into groups")
    found = profile.find_stack(stack)
    streams = found.streams if stream is None else (stream,)
    kernel = output_similarity(profile, stack, streams)
    num_outputs = len(kernel)
    if num_groups == "auto":
        candidates = [number for number in AUTO_GROUPS if number < num_outputs]
    else:
        if num_groups < 2:
            raise InputError(f"{num_groups} is no number of groups; give 2 or more, or auto")
        candidates = [num_groups] if num_groups <= num_outputs else []
    if not candidates:
        blocks = f"{num_outputs} block" + "s" * (num_outputs != 1)
        raise InputError(
            f"{stack} has {blocks} with a measured output, which can't be cut into "
            + ("groups; 3 or more are needed" if num_groups == "auto" else f"{num_groups} groups; ask for fewer")
        )
    cuts = [cut_into_runs(kernel, number) for number in candidates]
    widths = [silhouette_width(kernel, starts) for starts in cuts]
    best = int(np.argmax(widths))
    drift = even_drift(kernel)
    expected = silhouette_width(drift, cut_into_runs(drift, candidates[best]))
    return LayerGroups(stack, found.num_blocks, cuts[best], streams, widths[best], expected)


def output_similarity(profile: Profile, stack: str, streams: tuple[str, ...]) -> Array:
    """Cosine similarity of the outputs of all blocks whose output is in each of the streams; the mean over streams."""
    matrices = [profile.similarity(stack, stream)[1:, 1:] for stream in streams]
    num_outputs = min(len(matrix) for matrix in matrices)
    kernel = np.mean([matrix[:num_outputs, :num_outputs] for matrix in matrices], axis=0)
    if np.isnan(kernel).any():
        raise InputError(f"nothing was counted in {stack}; measure the profile over more samples")
    return np.asarray(kernel, dtype=np.float64)


def cut_into_runs(kernel: Array, num_runs: int) -> tuple[int, ...]:
    """The first members of the runs of least cost in all; `kernel` (n, n), 1 <= num_runs <= n."""
    size = len(kernel)
    costs = run_costs(kernel)
    least = costs[0].copy()  # of the first `end` members in as many runs as so far
    choices: list[list[int]] = []
    for number in range(2, num_runs + 1):
        after = np.full(size + 1, np.inf)
        choice = [0] * (size + 1)
        for end in range(number, size + 1):
            for start in range(number - 1, end):
                cost = least[start] + costs[start, end]
                if cost < after[end] - TIE:
                    after[end], choice[end] = cost, start
        least = after
        choices.append(choice)
    starts, end = [], size
    for choice in reversed(choices):
        end = choice[end]
        starts.append(end)
    return (0, *reversed(starts))


def run_costs(kernel: Array) -> Array:
    """The cost of each run [start, end): (n + 1, n + 1), infinite where there is none."""
    size = len(kernel)
    sums = np.zeros((size + 1, size + 1))
    sums[1:, 1:] = kernel.cumsum(0).cumsum(1)
    trace = np.concatenate([[0.0], np.diagonal(kernel).cumsum()])
    costs = np.full((size + 1, size + 1), np.inf)
    for start, end in itertools.combinations(range(size + 1), 2):
        inside = sums[end, end] - sums[start, end] - sums[end, start] + sums[start, start]
        costs[start, end] = max(0.0, trace[end] - trace[start] - inside / (end - start))
    return costs


def even_drift(kernel: Array) -> Array:
    """The kernel with each entry the mean of its diagonal: as alike at every distance, and no place unlike another."""
    size = len(kernel)
    means = np.array([np.diagonal(kernel, distance).mean() for distance in range(size)])
    return np.asarray(means[np.abs(np.subtract.outer(np.arange(size), np.arange(size)))], dtype=np.float64)


def silhouette_width(kernel: Array, starts: tuple[int, ...]) -> float:
    """The mean over members of (b - a) / max(a, b), with the distance 1 - kernel.

    a is the mean distance to the other members of the own run, b the least mean distance to those of another. A run's
    only member counts 0, as in the paper.
    """
    size = len(kernel)
    runs = [slice(start, end) for start, end in zip(starts, (*starts[1:], size), strict=True)]
    distance = 1 - kernel
    widths = np.zeros(size)
    for own in runs:
        num_members = own.stop - own.start
        if num_members == 1 or len(runs) == 1:
            continue
        inside = (distance[own, own].sum(1) - np.diagonal(distance)[own]) / (num_members - 1)
        outside = np.min([distance[own, other].mean(1) for other in runs if other != own], axis=0)
        larger = np.maximum(inside, outside)
        widths[own] = np.divide(outside - inside, larger, out=np.zeros(num_members), where=larger > 0)
    return float(widths.mean())
