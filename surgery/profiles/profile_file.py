"""Profiles as files: safetensors of float64 sums, with the recipe as JSON in the header; and profiles joined to one.

Tensor names are `stream/STACK/STREAM/PART/ARRAY`, `component/NAME/STREAM/PART/ARRAY`, and `mean/NAME/STREAM` (the mean
over all branches, float32), which `replace: mean` reads.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from surgery.damage import read_arrays, told_as
from surgery.errors import InputError
from surgery.files import write_whole
from surgery.profiles.layer_profile import Array, Moments, Profile, ProfiledStack, StreamSums, join_profiles, no_sums
from surgery.profiles.means import KEY, PREFIX
from surgery.spec.file_kind import is_spec

FORMAT = 1
NOT_THE_SAME = ("samples", "versions", "model")  # what may differ; a model is known by its identity, not by its place
ARRAYS = tuple(field.name for field in fields(StreamSums))


def write_profile(profile: Profile, path: str | Path) -> None:
    """Write a profile: beside, then renamed. The folders that it is in are made."""
    tensors: dict[str, Any] = {}
    for (stack, stream, part), sums in profile.streams.items():
        tensors |= {f"stream/{stack}/{stream}/{part}/{name}": getattr(sums, name) for name in ARRAYS}
    for (component, stream, part), moments in profile.components.items():
        place = f"component/{component}/{stream}/{part}"
        tensors |= {f"{place}/count": np.float64(moments.count), f"{place}/mean": moments.mean}
        tensors[f"{place}/squares"] = moments.squares
    for component, stream in dict.fromkeys((name, stream) for name, stream, _ in profile.components):
        tensors[f"{PREFIX}{component}/{stream}"] = profile.moments(component, stream).mean.astype(np.float32)
    header = {
        "format": FORMAT,
        "bins": profile.num_bins,
        "stacks": [
            {"name": stack.name, "num_blocks": stack.num_blocks, "streams": list(stack.streams)}
            for stack in profile.stacks
        ],
        "recipe": dict(profile.recipe),
    }
    arrays = {name: np.array(value, order="C") for name, value in tensors.items()}
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(path), save(arrays, metadata={KEY: json.dumps(header, ensure_ascii=False, allow_nan=False)}))


def read_profile(path: str | Path) -> Profile:
    """Read a profile.

    Raises:
        InputError: it can't be read, is truncated, is no profile, or one whose arrays do not fit one another.
    """
    if is_spec(path):
        raise InputError(f"{path} is a spec, and no profile, which `surgery profile` writes")
    header, tensors = read_arrays(path, KEY, f"the profile {path}")
    if header is None:
        raise InputError(f"{path} is no profile: `surgery profile MODEL --prompts FILE --out {path}` makes one")
    with told_as(f"the profile {path} is damaged"):
        return _parse(header, tensors)


def _parse(header: Mapping[str, Any], tensors: Mapping[str, Any]) -> Profile:
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']}, and this version reads {FORMAT}")
    stacks = tuple(ProfiledStack(s["name"], int(s["num_blocks"]), tuple(s["streams"])) for s in header["stacks"])
    num_bins = int(header["bins"])
    streams: dict[tuple[str, str, str], StreamSums] = {}
    components: dict[tuple[str, str, str], Moments] = {}
    for kind, name, stream, part in dict.fromkeys(_place(key) for key in tensors if not key.startswith(PREFIX)):
        place = f"{kind}/{name}/{stream}/{part}"
        if kind == "stream":
            sums = StreamSums(*(_array(tensors, f"{place}/{array}") for array in ARRAYS))
            _refuse_misshapen(sums, num_bins, place)
            streams[name, stream, part] = sums
        else:
            mean, squares = (_array(tensors, f"{place}/{array}") for array in ("mean", "squares"))
            if mean.ndim != 1 or mean.shape != squares.shape:
                raise ValueError(f"{place} has a mean of shape {mean.shape} and squares of shape {squares.shape}")
            components[name, stream, part] = Moments(float(_array(tensors, f"{place}/count")), mean, squares)
    for stack in stacks:
        for stream in stack.streams:
            if not any(key[:2] == (stack.name, stream) for key in streams):
                raise ValueError(f"the stream {stream} of {stack.name} is missing")
    return Profile(header["recipe"], stacks, num_bins, streams, components)


def _place(key: str) -> tuple[str, str, str, str]:
    kind, name, stream, part, _ = key.split("/")
    if kind not in ("stream", "component"):
        raise ValueError(f"the tensor {key} is not known")
    return kind, name, stream, part


def _array(tensors: Mapping[str, Any], name: str) -> Array:
    array = np.asarray(tensors[name], dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are no finite numbers")
    return array


def _refuse_misshapen(sums: StreamSums, num_bins: int, place: str) -> None:
    expected = no_sums(num_bins, sums.cosine.shape[1])
    for name in ARRAYS:
        found, wanted = getattr(sums, name).shape, getattr(expected, name).shape
        if found != wanted:
            raise ValueError(f"{place}/{name} has shape {found}, not {wanted}")


def merge_profiles(profiles: Sequence[Profile]) -> Profile:
    """Profiles of one model over disjoint prompts as one; any order and grouping gives the same but for rounding.

    Raises:
        InputError: they are of different models or were made differently, or some samples are in two of them.
    """
    first = profiles[0]
    for other in profiles[1:]:
        _refuse_others(first, other)
    samples = [sample for profile in profiles for sample in profile.recipe["samples"]]
    twice = (
        sorted({sample for sample in samples if samples.count(sample) > 1}) if len(set(samples)) < len(samples) else []
    )
    if twice:
        raise InputError(f"{len(twice)} samples are in two of the profiles, the first is {twice[0]!r}; measure others")
    return join_profiles(profiles, {**first.recipe, "samples": sorted(samples)})


def _refuse_others(first: Profile, other: Profile) -> None:
    if (first.stacks, first.num_bins) != (other.stacks, other.num_bins):
        raise InputError("the profiles are of different models, or have different bins; they can't be joined")
    for key, ours, theirs in _differences(first.recipe, other.recipe):
        if key not in NOT_THE_SAME:
            raise InputError(
                f"the profiles were made differently: {key} is {ours!r} in one and {theirs!r} in the other"
            )


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The entries in which two recipes differ, with both values; `call guidance_scale` for one within another."""
    for key in dict.fromkeys((*ours, *theirs)):
        one, other = ours.get(key), theirs.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from ((f"{key} {within}", *values) for within, *values in _differences(one, other))
        elif one != other:
            yield key, one, other
