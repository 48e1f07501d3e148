"""Which layers to leave out, or to run twice, as far as a profile can tell. All numbers are means over all timesteps.

- `influence`: layers one by one, those of least Block Influence, 1 - E[cos(token before, after)] (ShortGPT,
  arXiv 2403.03853).
- `span`: n neighbours from layer l on, the l of least angular distance d(l, l + n) between the input of the first and
  the output of the last (arXiv 2403.17887).
- `greedy`: one layer after the other. Where layers a to b - 1 are gone, layer b gets x_a for x_b, over the angular
  distance d(a, b). Each time, of the layers whose influence is within a tenth of the least that is left, the one goes
  whose gap, with what is gone beside it, is bridged over the least distance. (By the gaps alone it would take layers
  that lie apart, whatever they do.)

Several streams count alike, each where it was measured: the last block of SD3 has image tokens only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from surgery.errors import InputError
from surgery.profiles.layer_profile import Array, Profile
from surgery.spec.document import Scalar
from surgery.spec.places import Faults, Place
from surgery.spec.selector import indices_of_part, indices_to_text, read_selector

Method = Literal["influence", "span", "greedy"]
METHODS: tuple[Method, ...] = get_args(Method)
Forbidden = Mapping[str, frozenset[int]]  # by stack
ALIKE = 0.1  # of the least influence: what differs by less decides nothing (0.06 to 0.2 choose alike on the demo)


@dataclass(frozen=True)
class ChosenLayer:
    """A layer that was chosen, its number (influence, or angular distance in units of pi), and its place among others.

    `rank` counts from 1, the least. For `greedy` it is the turn in which the layer went.
    """

    stack: str
    index: int
    value: float
    rank: int


@dataclass(frozen=True)
class Choice:
    """What was chosen: `layers` in the order of their ranks; of a span all have its number and rank.

    `num_candidates` is how many layers, or spans, were compared; `streams` over which streams of each stack.
    """

    by: Method
    layers: tuple[ChosenLayer, ...]
    num_candidates: int
    streams: Mapping[str, tuple[str, ...]]
    forbidden: Forbidden

    @property
    def indices(self) -> Mapping[str, tuple[int, ...]]:
        """The layers of each stack, ascending."""
        found: dict[str, list[int]] = {}
        for layer in self.layers:
            found.setdefault(layer.stack, []).append(layer.index)
        return {stack: tuple(sorted(found[stack])) for stack in self.streams if stack in found}


def choose_layers(
    profile: Profile,
    number: int,
    *,
    by: Method,
    stacks: Sequence[str],
    stream: str | None = None,
    forbidden: Forbidden | None = None,
) -> Choice:
    """Choose `number` layers of these stacks; `forbidden` ones are left alone, the ends of each stack by default.

    Raises:
        InputError: there is no such stack or stream, or there are not as many layers, or as many neighbours.
    """
    if profile.has_only_angles:
        raise InputError(
            "the profile holds angular distances of single layers alone, as read off figures; suggestions need one "
            "that was measured"
        )
    left_alone = ends_of(profile, stacks) if forbidden is None else forbidden
    streams = {stack: streams_of(profile, stack, stream) for stack in stacks}
    if number < 1:
        raise InputError("no layer is to be chosen; ask for one or more")
    if by == "influence":
        values = {stack: layer_influence(profile, stack, streams[stack]) for stack in stacks}
        layers, count = _least(values, number, left_alone)
        return Choice(by, layers, count, streams, left_alone)
    if len(stacks) > 1:
        raise InputError(f"{by} takes the layers of one stack, and there are {', '.join(stacks)}; give --stack")
    (stack,) = stacks
    distances = span_distances(profile, stack, streams[stack])
    forbidden_here = left_alone.get(stack, frozenset())
    if by == "span":
        layers, count = _best_span(stack, distances, number, forbidden_here)
    else:
        influence = layer_influence(profile, stack, streams[stack])
        layers, count = _greedy(stack, distances, influence, number, forbidden_here)
    return Choice(by, layers, count, streams, left_alone)


def streams_of(profile: Profile, stack: str, stream: str | None) -> tuple[str, ...]:
    """All streams of a stack, or the one of this name; raises InputError where there is none."""
    found = profile.find_stack(stack)
    if stream is None:
        return found.streams
    profile.sums(stack, stream)
    return (stream,)


def ends_of(profile: Profile, stacks: Sequence[str]) -> Forbidden:
    """The first and the last layer of each stack."""
    return {stack: frozenset({0, profile.find_stack(stack).num_blocks - 1}) for stack in stacks}


def read_forbidden(texts: Sequence[str], profile: Profile, stacks: Sequence[str]) -> Forbidden:
    """The layers that selectors name; `none` names none.

    Raises:
        InputError: a selector is malformed, or names what the profile does not have.
    """
    found: dict[str, set[int]] = {stack: set() for stack in stacks}
    for text in texts:
        if text == "none":
            continue
        faults = Faults("--forbid")
        selectors = read_selector(Scalar(text, text, Place(1, 1)), {}, faults)
        for selector in selectors:
            names = [stack.name for stack in profile.stacks] if selector.stack == "*" else [selector.stack]
            for name in names:
                num_blocks = profile.find_stack(name).num_blocks
                indices = [indices_of_part(part, num_blocks) for part in selector.parts]
                if selector.component is not None or None in indices:
                    what = f"{name} has layers 0 to {num_blocks - 1}; write whole layers, like {name}[0:2]"
                    raise InputError(f"--forbid {text} names no layers: {what}")
                found.setdefault(name, set()).update(index for some in indices for index in some or ())
        if faults.found:
            raise InputError(f"--forbid {text}: {next(iter(faults.found))[1]}")
    return {stack: frozenset(indices) for stack, indices in found.items()}


def layer_influence(profile: Profile, stack: str, streams: Sequence[str]) -> Array:
    """Block Influence of each block, the mean over streams (L,); NaN where nothing was measured."""
    num_blocks = profile.find_stack(stack).num_blocks
    rows = np.full((len(streams), num_blocks), np.nan)
    for row, stream in enumerate(streams):
        values = profile.influence(stack, stream)
        rows[row, : len(values)] = values
    return _mean_where_measured(rows)


def span_distances(profile: Profile, stack: str, streams: Sequence[str]) -> Array:
    """Angular distance of any two states, the mean over streams (L + 1, L + 1); NaN where nothing was measured."""
    size = profile.find_stack(stack).num_blocks + 1
    layers = np.full((len(streams), size, size), np.nan)
    for row, stream in enumerate(streams):
        values = profile.span_angular(stack, stream)
        layers[row, : len(values), : len(values)] = values
    return _mean_where_measured(layers)


def _mean_where_measured(rows: Array) -> Array:
    count = (~np.isnan(rows)).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nansum(rows, axis=0) / count, dtype=np.float64)


def number_to_remove(profile: Profile, stacks: Sequence[str], keep: float) -> int:
    """How many layers go where at least this share of all is to be kept.

    Raises:
        InputError: it is no share between 0 and 1, or nothing would go.
    """
    if not 0 < keep < 1:
        raise InputError(f"{keep:g} is no share of layers to keep; give a number between 0 and 1, like 0.75")
    total = sum(profile.find_stack(stack).num_blocks for stack in stacks)
    number = total - math.ceil(keep * total - 1e-9)
    if not number:
        raise InputError(f"to keep {keep:g} of {total} layers, none may go; keep at most {(total - 1) / total:.3g}")
    return number


def forbidden_text(forbidden: Forbidden) -> str:
    """`transformer_blocks[0, 11]`, or `none`."""
    named = [f"{stack}[{indices_to_text(indices)}]" for stack, indices in forbidden.items() if indices]
    return ", ".join(named) or "none"


# Methods.


def _least(values: Mapping[str, Array], number: int, forbidden: Forbidden) -> tuple[tuple[ChosenLayer, ...], int]:
    allowed = sorted(
        (float(value), position, index)
        for position, (stack, row) in enumerate(values.items())
        for index, value in enumerate(row)
        if index not in forbidden.get(stack, frozenset()) and not np.isnan(value)
    )
    _refuse_too_many(number, len(allowed), forbidden)
    names = list(values)
    return tuple(
        ChosenLayer(names[position], index, value, rank + 1)
        for rank, (value, position, index) in enumerate(allowed[:number])
    ), len(allowed)


def _best_span(
    stack: str, distances: Array, number: int, forbidden: frozenset[int]
) -> tuple[tuple[ChosenLayer, ...], int]:
    starts = [
        start
        for start in range(len(distances) - number)
        if forbidden.isdisjoint(range(start, start + number)) and not np.isnan(distances[start, start + number])
    ]
    if not starts:
        raise InputError(
            f"{stack} has no {number} neighbours that may be chosen; left alone: {forbidden_text({stack: forbidden})}"
        )
    best = min(starts, key=lambda start: float(distances[start, start + number]))
    value = float(distances[best, best + number])
    return tuple(ChosenLayer(stack, index, value, 1) for index in range(best, best + number)), len(starts)


def _greedy(
    stack: str, distances: Array, influence: Array, number: int, forbidden: frozenset[int]
) -> tuple[tuple[ChosenLayer, ...], int]:
    num_blocks = len(distances) - 1
    allowed = [
        index for index in range(num_blocks) if index not in forbidden and not np.isnan(distances[index, index + 1])
    ]
    _refuse_too_many(number, len(allowed), {stack: forbidden})
    gone: set[int] = set()
    chosen: list[ChosenLayer] = []
    for turn in range(1, number + 1):
        left = [index for index in allowed if index not in gone]
        least = min(influence[index] for index in left)
        alike = [index for index in left if influence[index] <= least + ALIKE * abs(least)]
        value, index = min((_gap(distances, gone | {index}, index), index) for index in alike)
        gone.add(index)
        chosen.append(ChosenLayer(stack, index, value, turn))
    return tuple(chosen), len(allowed)


def _gap(distances: Array, gone: set[int], index: int) -> float:
    """The distance over which the run of removed layers around `index` is bridged; infinite where not measured."""
    start, end = index, index + 1
    while start - 1 in gone:
        start -= 1
    while end in gone:
        end += 1
    value = float(distances[start, end])
    return math.inf if math.isnan(value) else value


def _refuse_too_many(number: int, allowed: int, forbidden: Forbidden) -> None:
    if number > allowed:
        raise InputError(
            f"{number} layers can't be chosen: {allowed} may be (left alone: {forbidden_text(forbidden)}); "
            "ask for fewer, or give --forbid"
        )
