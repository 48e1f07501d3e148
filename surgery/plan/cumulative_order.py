"""In which order the operations of a sweep add up: as the values are written, or by a file of what was measured.

A profile puts the layers of least Block Influence first, 1 - E[cos(token before, after)] over all timesteps, the mean
over the streams of the stack; one that holds angular distances alone those of the least. An evaluation of the layers
one by one puts those of least damage first, by their denoising error, or where that was not measured by the first
metric that is paired with the baseline. Equals stay as they are written.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgery.anatomy.anatomy import Anatomy
from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import is_there
from surgery.finite import from_finite
from surgery.spec.beside_vary import BACKWARD, FORWARD, Cumulative
from surgery.spec.nearest import nearest, shorten
from surgery.spec.vary import Binding

NUMBERS, ERROR = "evaluation.json", "denoising error"
PROFILE_SIGN = ".safetensors#"

Values = Sequence[Binding]
Others = Mapping[str, Binding]  # the values of the other variables of a point
Order = Callable[[Others], Sequence[int]]
Measure = Callable[[Others], list[float]]  # a number for each value


def read_order(cumulative: Cumulative, folder: Path, anatomy: Anatomy, stack: str | None, values: Values) -> Order:
    """What puts the values of a variable in order: their numbers, the first to be edited first.

    `folder` is what the order's file is relative to, `stack` the one that the variable has layers of, where it says so.

    Raises:
        InputError: the file can't be read, or is not of this model; or later, where a value was not measured.
    """
    if cumulative.order == FORWARD:
        return lambda _: range(len(values))
    if cumulative.order == BACKWARD:
        return lambda _: range(len(values))[::-1]
    named, part = _parts_of(cumulative.order)
    if not is_there(folder / named):
        best = nearest(cumulative.order, (FORWARD, BACKWARD))
        advice = f'; did you mean "{best}"?' if best else ""
        fact = f'order is "{shorten(cumulative.order)}", and there is no such file'
        raise InputError(f"{fact}; write {FORWARD}, {BACKWARD}, a profile or an evaluation{advice}")
    path = _file_of(named, folder)
    if path.suffix == ".json":
        return _by(_damage(path, cumulative.over, values))
    return _by(_influence(path, anatomy, part or stack, values))


def file_of_order(cumulative: Cumulative, folder: Path) -> Path | None:
    """The file that puts operations in order; None where they are in the order in which the values are written."""
    return None if cumulative.order in (FORWARD, BACKWARD) else _file_of(_parts_of(cumulative.order)[0], folder)


def _parts_of(order: str) -> tuple[str, str]:
    """What an order names: a file or a folder, and the stack of a profile; empty where it says none."""
    file, sign, stack = order.partition(PROFILE_SIGN)
    return file + sign.rstrip("#"), stack


def _file_of(named: str, folder: Path) -> Path:
    """The file; of an evaluation's folder the one of its numbers."""
    path = folder / named
    return path / NUMBERS if path.is_dir() else path


def _by(measure: Measure) -> Order:
    known: dict[frozenset[tuple[str, Binding]], list[int]] = {}

    def order(others: Others) -> list[int]:
        key = frozenset(others.items())
        if key not in known:
            measured = measure(others)
            known[key] = sorted(range(len(measured)), key=measured.__getitem__)
        return known[key]

    return order


def _influence(path: Path, anatomy: Anatomy, stack: str | None, values: Values) -> Measure:
    import numpy as np

    from surgery.plan.profile_groups import refuse_other_model
    from surgery.profiles.profile_file import read_profile
    from surgery.profiles.suggestion import layer_influence, span_distances

    profile = read_profile(path)
    if stack is None and len(profile.stacks) > 1:
        names = ", ".join(known.name for known in profile.stacks)
        raise InputError(
            f"the profile {path} has the stacks {names}; write which: {path.name}#{profile.stacks[0].name}"
        )
    known = profile.find_stack(stack or profile.stacks[0].name)
    refuse_other_model(profile, anatomy, known.name)
    if profile.has_only_angles:
        found = np.diagonal(span_distances(profile, known.name, known.streams), 1)
    else:
        found = layer_influence(profile, known.name, known.streams)

    lacking = [v for v in values if not isinstance(v, int) or not 0 <= v < len(found) or np.isnan(found[v])]
    if lacking:
        fact = f"the profile {path} says nothing of a layer {lacking[0]} of {known.name}"
        raise InputError(f"{fact}; it has layers 0 to {known.num_blocks - 1}")
    measured = [float(found[int(value)]) for value in values]
    return lambda _: measured


def _damage(path: Path, over: str, values: Values) -> Measure:
    what = f"the evaluation {path}"
    with told_as(f"{what} can't be read"):
        text = path.read_bytes()
    with told_as(f"{what} is damaged"):
        document = from_finite(json.loads(text))
        rows = [row for row in document["rows"] if row["kind"] == "variant" and over in row.get("point", {})]
    if not rows:
        raise InputError(
            f"{what} has no variants with a variable {over}; evaluate a sweep that edits its layers singly"
        )
    if any("cumulative" in row for row in rows):
        raise InputError(f"{what} is of a cumulative sweep; give one that edits the layers one by one")

    def measure(others: Others) -> list[float]:
        with told_as(f"{what} is damaged"):
            chosen = [_row_of(rows, over, value, others, what) for value in values]
            return list(_damages(chosen, what))

    return measure


def _row_of(rows: Sequence[Any], over: str, value: Binding, others: Others, what: str) -> Any:
    """The row of a value; where the evaluation has other variables of the sweep as well, the one with the same."""
    wanted = {**others, over: value}
    found = [row for row in rows if all(wanted.get(name, held) == held for name, held in row["point"].items())]
    if len(found) == 1:
        return found[0]
    several = f"{len(found)} variants with {over}={value}: {', '.join(row['name'] for row in found[:3])}"
    fact = several if found else f"no variant with {over}={value}"
    raise InputError(f"{what} has {fact}; give one with one for each value")


def _damages(rows: Sequence[Any], what: str) -> Iterator[float]:
    """The damage of each row by the first metric that tells it of all."""
    known = [name for name, score in rows[0]["scores"].items() if score["paired_with_the_baseline"]]
    first = sorted(known, key=lambda name: rows[0]["scores"][name]["key"] != ERROR)
    shared = [name for name in first if all(math.isfinite(row["scores"][name]["value"]) for row in rows)]
    if not shared:
        raise InputError(f"{what} has no metric that pairs all its variants with the baseline")
    for row in rows:
        score = row["scores"][shared[0]]
        yield -score["value"] if score["higher_is_better"] else score["value"]
