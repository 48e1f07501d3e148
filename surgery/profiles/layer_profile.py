"""A profile: what the layers of a model did over prompts and timesteps, as sums that can be added up. No torch.

*States* of a stream are the inputs of a stack's L blocks and what comes out of the last (S = L + 1; S = L where the
last block returns none of it). A *sample* is one element of a batch in one forward. x_a[t] is token t of state a, cos
the cosine of two vectors (0 where one of them is zero); all means below are over what was counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from surgery.errors import InputError
from surgery.spec.selector import FIRST

Array = NDArray[np.float64]
Similarity = Literal["cosine", "token", "means"]


@dataclass(frozen=True)
class ProfiledStack:
    """A stack that was measured, and its streams."""

    name: str
    num_blocks: int
    streams: tuple[str, ...]


@dataclass(frozen=True)
class StreamSums:
    """Sums over one part of a stream, by timestep bin (B of them, of equal width over the noise range 0 to 1).

    | array | shape | of |
    |---|---|---|
    | samples, tokens | (B,) | how many were counted |
    | cosine | (B, S, S) | samples: cos of two states, all tokens of each as one vector (Transformer Layers as Painters, arXiv 2407.09298) |
    | token_cosine | (B, S, S) | tokens: cos(x_a[t], x_b[t]); Block Influence is 1 - its mean for b = a + 1 (ShortGPT, arXiv 2403.03853) |
    | angle | (B, S, S) | arccos(cos(x_a[t], x_b[t])) / pi (arXiv 2403.17887), over all tokens or the last one of each sample |
    | angles | (B,) | how many angles were counted |
    | residual | (B, S - 1) | tokens: norm(x_{a+1}[t] - x_a[t]) / norm(x_a[t]), tokens of norm zero left out as 0 |
    | mean_cosine | (S, S) | trajectories: cos of two states' means over a trajectory's steps; zeros where it was not asked for |
    | trajectories | () | how many of them |
    """  # noqa: E501  (a table)

    samples: Array
    tokens: Array
    cosine: Array
    token_cosine: Array
    angle: Array
    angles: Array
    residual: Array
    mean_cosine: Array
    trajectories: Array

    def __add__(self, other: "StreamSums") -> "StreamSums":
        return StreamSums(*(np.asarray(getattr(self, f.name) + getattr(other, f.name)) for f in fields(self)))

    @property
    def num_states(self) -> int:
        """S: the number of states that were compared."""
        return int(self.cosine.shape[1])


def no_sums(num_bins: int, num_states: int) -> StreamSums:
    """Sums over nothing."""
    pairs = (num_bins, num_states, num_states)
    shapes = [(num_bins,), (num_bins,), pairs, pairs, pairs, (num_bins,), (num_bins, num_states - 1), pairs[1:], ()]
    return StreamSums(*(np.zeros(shape) for shape in shapes))


@dataclass(frozen=True)
class Moments:
    """Of a component's output over tokens: how many, and by channel the mean and the sum of squared deviations."""

    count: float
    mean: Array
    squares: Array

    def __add__(self, other: "Moments") -> "Moments":
        """Of both together (Chan, Golub and LeVeque 1983, eq. 1.5)."""
        count = self.count + other.count
        if not count:
            return self
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        return Moments(count, mean, self.squares + other.squares + step**2 * (self.count * other.count / count))

    @property
    def variance(self) -> Array:
        """Of each channel, over all tokens."""
        return self.squares / self.count if self.count else np.full_like(self.squares, np.nan)


@dataclass(frozen=True)
class Profile:
    """What was measured, and how.

    `streams` is keyed by (stack, stream, part), `components` by (dotted name, stream, part). A *part* is a branch of
    classifier-free guidance (`conditional`, `unconditional`), or one with some of its tokens (`conditional:text`,
    `conditional:padding`), which a part without a colon holds as well. Parts are added up in the order of their names:
    a file knows no other. Components are counted by branch, without padding where it is known. `recipe` is plain data:
    how the profile was made.
    """

    recipe: Mapping[str, Any]
    stacks: tuple[ProfiledStack, ...]
    num_bins: int
    streams: Mapping[tuple[str, str, str], StreamSums]
    components: Mapping[tuple[str, str, str], Moments]

    @property
    def transformer(self) -> str:
        """Which transformer of its pipeline was measured, by the name that it has there."""
        return str(self.recipe.get("transformer", FIRST))

    def find_stack(self, name: str) -> ProfiledStack:
        """The stack of this name; raises InputError where it was not measured."""
        found = next((stack for stack in self.stacks if stack.name == name), None)
        if found is None:
            known = ", ".join(stack.name for stack in self.stacks)
            raise InputError(f"the profile has no stack {name}; it has {known}")
        return found

    @property
    def has_only_angles(self) -> bool:
        """Whether it holds angular distances of consecutive layers alone, as one that was read off figures does."""
        sums = self.streams.values()
        return any(one.angles.any() for one in sums) and not any(one.tokens.any() for one in sums)

    def parts(self, stack: str, stream: str) -> tuple[str, ...]:
        """The parts of a stream that were counted."""
        return tuple(part for at, name, part in self.streams if (at, name) == (stack, stream))

    def sums(self, stack: str, stream: str, part: str | None = None) -> StreamSums:
        """The sums of a stream: those of one part, or of all branches together.

        Raises:
            InputError: there is no such stack, stream or part.
        """
        known = self.find_stack(stack)
        if stream not in known.streams:
            raise InputError(f"the profile has no stream {stream} of {stack}; it has {', '.join(known.streams)}")
        parts = self.parts(stack, stream)
        wanted = [name for name in parts if (":" not in name if part is None else name == part)]
        if not wanted:
            raise InputError(f"the profile has no part {part} of {stack}/{stream}; it has {', '.join(parts)}")
        return reduce(StreamSums.__add__, (self.streams[stack, stream, name] for name in sorted(wanted)))

    def similarity(
        self,
        stack: str,
        stream: str,
        part: str | None = None,
        *,
        kind: Similarity = "cosine",
        time_bin: int | None = None,
    ) -> Array:
        """Cosine similarity of all states (S, S), over all bins or of one: mean of cosines, of whole states or of
        tokens, or (`means`) cosine of means. State 0 is the embedding, what enters block 0; `[1:, 1:]` leaves it out.
        NaN where nothing was counted."""
        sums = self.sums(stack, stream, part)
        if kind == "means":
            return _ratio(sums.mean_cosine, sums.trajectories)
        total, count = (sums.cosine, sums.samples) if kind == "cosine" else (sums.token_cosine, sums.tokens)
        return _mean(total, count) if time_bin is None else _ratio(total[time_bin], count[time_bin])

    def angular(self, stack: str, stream: str, part: str | None = None) -> Array:
        """Angular distance of each block's input and output by bin (B, S - 1), in units of pi; NaN in empty bins."""
        sums = self.sums(stack, stream, part)
        return _ratio(np.diagonal(sums.angle, 1, 1, 2), sums.angles[:, None])

    def span_angular(self, stack: str, stream: str, part: str | None = None) -> Array:
        """Angular distance of any two states over all bins (S, S): [l, l + n] is that of the n blocks from l on."""
        sums = self.sums(stack, stream, part)
        angles = _mean(sums.angle, sums.angles)
        if self.has_only_angles:
            angles[np.tri(len(angles), k=-2, dtype=bool) | ~np.tri(len(angles), k=1, dtype=bool)] = np.nan
        return angles

    def influence(self, stack: str, stream: str, part: str | None = None) -> Array:
        """Block Influence of each block (S - 1,): 1 - E[cos of a token before and after it]."""
        sums = self.sums(stack, stream, part)
        return 1 - np.diagonal(_mean(sums.token_cosine, sums.tokens), 1)

    def residual_norm(self, stack: str, stream: str, part: str | None = None) -> Array:
        """What each block adds to a token, relative to the token's norm (S - 1,)."""
        sums = self.sums(stack, stream, part)
        return _mean(sums.residual, sums.tokens)

    def moments(self, component: str, stream: str, part: str | None = None) -> Moments:
        """Of a component's output: of one branch, or of all together; raises InputError where there is none."""
        parts = [p for (n, s, p) in self.components if (n, s) == (component, stream) and part in (None, p)]
        if not parts:
            raise InputError(f"the profile has no output {stream} of {component}")
        return reduce(Moments.__add__, (self.components[component, stream, p] for p in sorted(parts)))

    def empty_bins(self) -> list[int]:
        """The bins in which nothing was counted."""
        counted = sum((sums.angles for sums in self.streams.values()), np.zeros(self.num_bins))
        return [int(number) for number in np.flatnonzero(counted == 0)]


def join_profiles(profiles: Sequence[Profile], recipe: Mapping[str, Any]) -> Profile:
    """All that profiles of one model have counted, as one of this recipe; a stack may have run in some of them only."""
    stacks: dict[str, ProfiledStack] = {}
    for stack in (stack for profile in profiles for stack in profile.stacks):
        before = stacks[stack.name].streams if stack.name in stacks else ()
        stacks[stack.name] = replace(stack, streams=tuple(dict.fromkeys((*before, *stack.streams))))
    streams = add_up(profile.streams for profile in profiles)
    components = add_up(profile.components for profile in profiles)
    return Profile(recipe, tuple(stacks.values()), profiles[0].num_bins, streams, components)


def add_up(profiles: Iterable[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Several maps to sums as one; a key that only some have is taken from those."""
    found: dict[Any, Any] = {}
    for entries in profiles:
        for key, value in entries.items():
            found[key] = found[key] + value if key in found else value
    return found


def _mean(total: Array, count: Array) -> Array:
    """The mean over all bins."""
    return _ratio(total.sum(0), count.sum(0))


def _ratio(total: Array, count: Any) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / count, dtype=np.float64)
