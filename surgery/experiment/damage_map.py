"""An `evaluation.json` with a sweep over single layers -> maps of damage: what each layer's edit costs at each time."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.experiment.layer_edit import LayerEdit, find_layer_edit
from surgery.finite import from_finite
from surgery.plan.paired import ModelPlan, model_plan_from_json, plans_of_model

Array = NDArray[np.float64]

MIN_LAYERS = 2  # of a map
NO_LAYER, NO_OTHER, NO_NUMBER = (
    "it edits no single layer alone",
    "no other layer of its stack is edited so",
    "its denoising error is no finite number",
)


@dataclass(frozen=True)
class DamageMap:
    """The denoising error of variants that make one edit to one layer each.

    `errors` are means over prompts by timestep bin and layer (B, L), from clean to noise, NaN for layers that no
    variant edits; `low` and `high` are the ends of their intervals, NaN where they are not known.
    """

    stack: str
    what: str
    errors: Array
    low: Array
    high: Array

    @property
    def layers(self) -> list[int]:
        """The layers that were measured."""
        return [int(index) for index in np.flatnonzero(~np.isnan(self.errors).all(0))]


@dataclass(frozen=True)
class Damage:
    """All maps of an evaluation, in the order of its rows.

    `lengths` are the blocks of each stack of the model, a `class_name`; `left_out` says why other rows are in no map.
    """

    maps: tuple[DamageMap, ...]
    class_name: str
    lengths: Mapping[str, int]
    num_bins: int
    num_prompts: int
    left_out: Mapping[str, str]

    def of_stack(self, stack: str) -> list[DamageMap]:
        """The maps of one stack."""
        return [found for found in self.maps if found.stack == stack]

    @property
    def stacks(self) -> list[str]:
        """The stacks that have a map, in order."""
        return list(dict.fromkeys(found.stack for found in self.maps))


@dataclass(frozen=True)
class _Row:
    """A variant: its name, its plan, and its errors by bin with the ends of their intervals (3, B)."""

    name: str
    plan: ModelPlan
    errors: Array


def read_damage(path: Path) -> Damage:
    """The maps of the rows that edit a single layer, known by their plans and not by their names.

    Raises:
        InputError: it is no `evaluation.json`, holds no denoising error, or no sweep over single layers.
    """
    what = f"the evaluation {path}"
    with told_as(f"{what} can't be read"):
        document = from_finite(json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(document, dict) or "rows" not in document or "recipe" not in document:
        raise InputError(f"{path} is no evaluation: `surgery evaluate SPEC... --prompts FILE --out DIR` writes one")
    with told_as(f"{what} is damaged"):
        rows, num_prompts = _read_rows(document), len(document["recipe"]["prompts"])
        notes = [str(note) for note in document["notes"]]
    if not rows:
        reasons = [note for note in notes if note.startswith("no denoising error: ")]
        raise InputError(f"{what} has no denoising error of a variant" + "".join(f"; its note: {r}" for r in reasons))
    return _map_rows(rows, num_prompts, what)


def _read_rows(document: Mapping[str, Any]) -> list[_Row]:
    """The variants whose denoising errors were measured; raises what a damaged document makes it raise."""
    found = [row for row in document["rows"] if row["kind"] == "variant" and "denoising_error_by_bin" in row]
    found = [row for row in found if "plan" in row or "own_model" not in row]  # of a model without one nothing is said
    found = [row for row in found if "transformers" not in row["plan"]]  # a plan of two transformers is of no one layer
    rows = [_Row(str(row["name"]), _read_plan(row["plan"]), _read_errors(row)) for row in found]
    lengths = {item for row in rows for item in _lengths(row.plan)}
    if len({(row.errors.shape, row.plan.class_name) for row in rows}) > 1 or len(lengths) != len(dict(lengths)):
        raise ValueError("its variants have different timestep bins, or are of different models")
    return rows


def _read_plan(data: dict[str, Any]) -> ModelPlan:
    if "hash" not in data:
        raise ValueError("a plan has no hash")
    return model_plan_from_json(data)


def _read_errors(row: Mapping[str, Any]) -> Array:
    """(3, B): the errors and the ends of their intervals; evaluations of older versions have no intervals."""
    values = np.array(row["denoising_error_by_bin"], dtype=np.float64)
    ends = row.get("denoising_error_by_bin_interval", {"low": None, "high": None})
    lows, highs = (
        np.full_like(values, np.nan) if ends[key] is None else _numbers(ends[key]) for key in ("low", "high")
    )
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{row['name']} has no denoising error by timestep")
    return np.stack([values, lows, highs])


def _numbers(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _lengths(plan: ModelPlan) -> tuple[tuple[str, int], ...]:
    return tuple((schedule.stack, schedule.num_blocks) for each in plans_of_model(plan) for schedule in each.schedules)


def _map_rows(rows: Sequence[_Row], num_prompts: int, what: str) -> Damage:
    left_out: dict[str, str] = {}
    by_edit: dict[tuple[str, str], dict[int, _Row]] = {}
    for row, edit in _edits_of(rows, left_out):
        layers = by_edit.setdefault((edit.stack, edit.what), {})
        if layers.setdefault(edit.layer, row).plan.hash != row.plan.hash:
            other = layers[edit.layer].name
            raise InputError(f"{what} has two rows that edit one layer alike and yet differ: {other} and {row.name}")
    for layers in by_edit.values():
        if len(layers) < MIN_LAYERS:
            left_out |= {row.name: NO_OTHER for row in layers.values()}
    num_bins = rows[0].errors.shape[1]
    lengths = dict(item for row in rows for item in _lengths(row.plan))
    maps = [
        _map_of(stack, edit, layers, lengths[stack], num_bins)
        for (stack, edit), layers in by_edit.items()
        if len(layers) >= MIN_LAYERS
    ]
    if not maps:
        raise InputError(f"{what} has no sweep over single layers: {_reasons(left_out)}; {_advice(lengths)}")
    return Damage(tuple(maps), rows[0].plan.class_name, lengths, num_bins, num_prompts, left_out)


def _edits_of(rows: Sequence[_Row], left_out: dict[str, str]) -> Iterator[tuple[_Row, LayerEdit]]:
    """The rows that edit one layer; why others don't belong to a map is put into `left_out`."""
    for row in rows:
        edit = find_layer_edit(row.plan)
        if edit is None:
            left_out[row.name] = NO_LAYER
        elif not np.isfinite(row.errors[0]).all():
            left_out[row.name] = NO_NUMBER
        else:
            yield row, edit


def _map_of(stack: str, what: str, layers: Mapping[int, _Row], num_blocks: int, num_bins: int) -> DamageMap:
    cells = np.full((3, num_bins, num_blocks), np.nan)
    for layer, row in layers.items():
        cells[:, :, layer] = row.errors
    return DamageMap(stack, what, *cells)


def _reasons(left_out: Mapping[str, str]) -> str:
    """The first row that is left out, and how many others are."""
    name, reason = next(iter(left_out.items()))
    num = len(left_out) - 1
    others = f", and {num} other{'s' * (num > 1)}" if num else ""
    return f"of {name}, {reason}{others}"


def _advice(lengths: Mapping[str, int]) -> str:
    """How a sweep over the longest stack is written."""
    stack = max(lengths, key=lambda name: lengths[name])
    return (
        f"write `vary: {{layer: range(0, {lengths[stack]})}}` and "
        f'`operations: [{{skip: "{stack}[{{layer}}]"}}]`, without `cumulative`'
    )
