"""A profile -> one number a layer: how much it turns its streams, 0 for the least of all layers and 1 for the most.

The steps are those of the SD3.5 study: angular distances by timestep bin, clipped at a percentile of all cells, times
the weight of the stream, the mean over streams and then over bins, and (a - min) / (max - min) over the layers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from surgery.errors import InputError
from surgery.spec.nearest import unknown_text
from surgery.spec.selector import indices_to_text

if TYPE_CHECKING:
    from surgery.profiles.layer_profile import Profile, ProfiledStack

Normalization = Literal["apart", "jointly"]
IMAGE_WEIGHT, TEXT_WEIGHT = 2 / 3, 1 / 3  # of the SD3.5 study: the text stream does not enter the loss itself


@dataclass(frozen=True)
class Weighing:
    """How distances become contributions.

    `clip_percentile` None clips nothing. Streams that `weights` does not name do not count; empty, each stream counts
    as much as any other. `normalization` puts each stack between 0 and 1 (`apart`) or all of them together (`jointly`).
    """

    clip_percentile: float | None = 90.0
    weights: Mapping[str, float] = field(default_factory=dict)
    normalization: Normalization = "apart"
    ignore_empty_bins: bool = False


@dataclass(frozen=True)
class Contributions:
    """Of one stack: `shares` has one number from 0 to 1 for each block.

    `weights` are those of the streams that counted. `num_measured` is less than the number of blocks where a stream
    ends early: the blocks after it share the last known number.
    """

    stack: str
    shares: tuple[float, ...]
    weights: tuple[tuple[str, float], ...]
    num_measured: int


def read_weight(text: str) -> tuple[str, float]:
    """`hidden_states=2/3` -> the stream and its weight; raises InputError."""
    stream, _, number = text.partition("=")
    try:
        weight = float(Fraction(number.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        weight = math.nan
    if not stream.strip() or not 0 <= weight < math.inf:
        raise InputError(f'"{text}" is no weight of a stream; write STREAM=NUMBER, like hidden_states=2/3')
    return stream.strip(), weight


def measure_contributions(
    profile: "Profile", weighing: Weighing, stacks: Sequence[str] | None = None
) -> tuple[Contributions, ...]:
    """The contributions of all layers of some stacks (None: all that were profiled).

    Raises:
        InputError: a stack or stream was not profiled, bins are without samples, a distance is no finite number, or
            all layers contribute the same.
    """
    chosen = [profile.find_stack(name) for name in (stacks or [stack.name for stack in profile.stacks])]
    if weighing.clip_percentile is not None and not 0 < weighing.clip_percentile <= 100:
        raise InputError(f"distances can't be clipped at percentile {weighing.clip_percentile:g}; write 0 < P <= 100")
    _refuse_unknown_streams(chosen, weighing.weights)
    weights = {stack.name: _weights_of(stack, weighing.weights) for stack in chosen}
    means = {stack.name: _mean_distances(profile, stack, weights[stack.name], weighing) for stack in chosen}
    if weighing.normalization == "jointly":
        shares = dict(zip(means, _normalize_jointly(means, weights), strict=True))
    else:
        shares = {name: _normalize([values], name)[0] for name, values in means.items()}
    return tuple(
        Contributions(
            stack.name,
            tuple(shares[stack.name]) + (shares[stack.name][-1],) * (stack.num_blocks - len(shares[stack.name])),
            tuple(weights[stack.name].items()),
            len(shares[stack.name]),
        )
        for stack in chosen
    )


def _refuse_unknown_streams(stacks: Sequence["ProfiledStack"], weights: Mapping[str, float]) -> None:
    known = list(dict.fromkeys(stream for stack in stacks for stream in stack.streams))
    for stream in weights:
        if stream not in known:
            raise InputError(unknown_text("stream", stream, known, "in the profile"))


def _weights_of(stack: "ProfiledStack", weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of the streams of a stack that count."""
    found = {stream: weights.get(stream, 0.0) if weights else 1.0 for stream in stack.streams}
    found = {stream: weight for stream, weight in found.items() if weight > 0}
    if not found:
        raise InputError(
            f"no stream of {stack.name} has a weight above 0; it has {', '.join(stack.streams)}: weigh one of them, "
            "or leave the stack out (--stack names those to train)"
        )
    return found


def _mean_distances(
    profile: "Profile", stack: "ProfiledStack", weights: Mapping[str, float], weighing: Weighing
) -> list[float]:
    """Weighted angular distances of the measured layers, the mean over bins."""
    from surgery.profiles.heatmaps import clip_at_percentile, combine_streams

    heatmaps = []
    for stream in weights:
        heatmap = _without_empty_bins(profile.angular(stack.name, stream), stack.name, stream, weighing)
        _refuse_misfit(heatmap, stack, stream)
        percent = weighing.clip_percentile
        heatmaps.append(heatmap if percent is None else clip_at_percentile(heatmap, percent))
    return [float(value) for value in combine_streams(heatmaps, list(weights.values())).mean(axis=0)]


def _without_empty_bins(heatmap: Any, stack: str, stream: str, weighing: Weighing) -> Any:
    """The rows that were measured; empty ones are refused, or left out where that was asked for."""
    import numpy as np

    empty = np.isnan(heatmap).all(axis=1)
    if empty.all():
        raise InputError(f"the profile has no sample of the stream {stream} of {stack}")
    if empty.any() and not weighing.ignore_empty_bins:
        bins = indices_to_text(int(index) for index in np.flatnonzero(empty))
        raise InputError(
            f"the timestep bins {bins} (of {len(empty)}) have no sample of {stack}; profile more steps or prompts, or "
            "fewer bins, or average over the others with --ignore-empty-bins (of two transformers, each runs in a part "
            "of the noise range)"
        )
    return heatmap[~empty]


def _refuse_misfit(heatmap: Any, stack: "ProfiledStack", stream: str) -> None:
    import numpy as np

    if not stack.num_blocks - 1 <= heatmap.shape[1] <= stack.num_blocks or heatmap.shape[1] < 1:
        raise InputError(
            f"the profile has {heatmap.shape[1]} distances of the stream {stream} for the {stack.num_blocks} blocks of "
            f"{stack.name}; profile the model again"
        )
    wrong = np.argwhere(~np.isfinite(heatmap))
    if len(wrong):
        time_bin, layer = (int(index) for index in wrong[0])
        raise InputError(
            f"the distance of {stack.name}[{layer}] ({stream}) in timestep bin {time_bin} is no finite number; "
            "profile the model again"
        )


def _normalize_jointly(
    means: Mapping[str, Sequence[float]], weights: Mapping[str, Mapping[str, float]]
) -> list[list[float]]:
    """Over all stacks; each mean first becomes one by weights that add up to 1, so that stacks can be compared."""
    scales = {name: len(of) / sum(of.values()) for name, of in weights.items()}
    scaled = [[value * scales[name] for value in values] for name, values in means.items()]
    return _normalize(scaled, " and ".join(means))


def _normalize(groups: Sequence[Sequence[float]], name: str) -> list[list[float]]:
    """(a - min) / (max - min) over all values."""
    values = [value for group in groups for value in group]
    least, most = min(values), max(values)
    if least == most:
        raise InputError(
            f"all {len(values)} measured layers of {name} contribute {least:.4g}; nothing tells them apart: normalise "
            "with other stacks (--normalize jointly), or leave the stack out (--stack names those to train)"
        )
    return [[(value - least) / (most - least) for value in group] for group in groups]
