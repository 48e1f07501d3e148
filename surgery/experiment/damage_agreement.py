"""Does angular distance predict damage, and at which times? Maps of damage beside the heat maps of a profile."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from surgery.errors import InputError
from surgery.experiment.damage_map import Damage, DamageMap
from surgery.metrics.intervals import Interval
from surgery.metrics.rank_correlation import rank_correlation
from surgery.profiles.layer_profile import Profile
from surgery.profiles.mismatch import find_mismatch
from surgery.spec.selector import FIRST

Array = NDArray[np.float64]
Answer = Literal["yes", "not shown", "the reverse"]

ROWS = "layers"  # what is drawn anew for an interval


@dataclass(frozen=True)
class AngleMap:
    """Angular distance of each layer's input and output in a stream by timestep bin (B, L); NaN where there is none."""

    stack: str
    stream: str
    angles: Array


@dataclass(frozen=True)
class Agreement:
    """Rank correlations of a map of damage with the angular distances of one stream, over layers.

    `by_bin` are of each timestep bin; `all_times` of the layers' means over the bins; `all_cells` of the maps as a
    whole, in which times are ranked as well. Intervals are from drawing layers anew, each with all its bins: they say
    what other layers would change, those of the damage what other prompts would. None where there is nothing to rank.
    """

    stack: str
    what: str
    stream: str
    by_bin: tuple[Interval | None, ...]
    all_times: Interval | None
    all_cells: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the answers."""
        whole = {"all_times": self.all_times, "all_cells": self.all_cells}
        return {
            **{"stack": self.stack, "edit": self.what, "stream": self.stream},
            "by_bin": [_to_json(one) for one in self.by_bin],
            **{name: _to_json(one) for name, one in whole.items()},
        }


def answer(found: Interval | None) -> Answer:
    """Whether more distance goes with more damage: only where the whole interval says so."""
    if found is None or found.low is None or found.high is None:
        return "not shown"
    return "yes" if found.low > 0 else "the reverse" if found.high < 0 else "not shown"


def answers_by_time(found: Sequence[Interval | None]) -> list[tuple[range, Answer]]:
    """Runs of timestep bins that have one answer, in order."""
    runs = []
    for said, group in itertools.groupby(range(len(found)), key=lambda number: answer(found[number])):
        bins = list(group)
        runs.append((range(bins[0], bins[-1] + 1), said))
    return runs


def angle_maps(damage: Damage, profile: Profile, stream: str | None = None) -> list[AngleMap]:
    """The heat maps of a profile for the stacks of an evaluation: of all streams, or of those of one name.

    Raises:
        InputError: the profile is of another model, has other timestep bins, or no such stream.
    """
    if profile.num_bins != damage.num_bins:
        raise InputError(
            f"the profile has {profile.num_bins} timestep bins and the evaluation {damage.num_bins}; measure one of "
            f"them again, with --bins {damage.num_bins} for the profile or --bins {profile.num_bins} for the evaluation"
        )
    if profile.transformer != FIRST:
        raise InputError(f"the profile is of {profile.transformer}, and the evaluation of the first transformer")
    for stack in damage.stacks:
        mismatch = find_mismatch(profile, damage.class_name, damage.lengths, profile.find_stack(stack).name)
        if mismatch is not None:
            raise InputError(f"{mismatch}; give a profile of the model that was evaluated")
    known = [
        (stack, name)
        for stack in damage.stacks
        for name in profile.find_stack(stack).streams
        if profile.sums(stack, name).num_states > 1  # a block returns it
    ]
    wanted = [(stack, name) for stack, name in known if stream in (None, name)]
    if not wanted:
        raise InputError(f"the profile has no stream {stream}; it has {', '.join(dict.fromkeys(n for _, n in known))}")
    return [AngleMap(stack, name, _angles_of_all_layers(damage, profile, stack, name)) for stack, name in wanted]


def _angles_of_all_layers(damage: Damage, profile: Profile, stack: str, stream: str) -> Array:
    """(B, L): NaN for a last layer that does not return the stream."""
    angles = profile.angular(stack, stream)
    if np.isnan(angles).all():
        raise InputError(f"nothing was counted in {stack}/{stream} of the profile; measure it over more samples")
    missing = damage.lengths[stack] - angles.shape[1]
    return np.pad(angles, ((0, 0), (0, missing)), constant_values=np.nan)


def compare_maps(damage: Damage, angles: Sequence[AngleMap]) -> list[Agreement]:
    """Each map of damage with each stream of its stack."""
    return [_compare(found, beside) for found in damage.maps for beside in angles if beside.stack == found.stack]


def _compare(found: DamageMap, beside: AngleMap) -> Agreement:
    both = np.isnan(found.errors) | np.isnan(beside.angles)
    lost, turned = (np.where(both, np.nan, cells).T for cells in (found.errors, beside.angles))  # (L, B)
    by_bin = tuple(rank_correlation(*columns, rows=ROWS) for columns in zip(lost.T, turned.T, strict=True))
    return Agreement(
        *(found.stack, found.what, beside.stream, by_bin),
        all_times=rank_correlation(_mean_over_bins(lost), _mean_over_bins(turned), rows=ROWS),
        all_cells=rank_correlation(lost, turned, rows=ROWS),
    )


def _mean_over_bins(cells: Array) -> Array:
    """(L, B) -> (L,), over the bins that every measured layer has; NaN for layers that were not measured."""
    measured = ~np.isnan(cells).all(1)
    common = ~np.isnan(cells[measured]).any(0)
    means = np.full(len(cells), np.nan)
    if common.any():
        means[measured] = cells[measured][:, common].mean(1)
    return means


def _to_json(found: Interval | None) -> Mapping[str, Any] | None:
    return None if found is None else {**found.to_json(), "predicts": answer(found)}
