"""The row of a folder in an evaluation, and what its model card says of it."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from surgery.anatomy.contents import contents_of, transformers_of
from surgery.anatomy.identity import Identity
from surgery.anatomy.sources import find_source
from surgery.errors import InputError
from surgery.experiment.controls import BASELINE
from surgery.metrics.intervals import Interval
from surgery.publish.artefact import Artefact, read_compiled
from surgery.publish.manifest import kind_of_folder
from surgery.publish.model_card import as_it_stands, one_line
from surgery.report.evaluated import Measured, MeasuredMetric, MeasuredRow
from surgery.report.evaluation_table import COSTS, number_text

MADE_WITH = ("seed", "batch_size", "dtype", "device")
COST_NAMES = {"params": "parameters", "bytes": "bytes", "FLOPs": "FLOPs of the blocks", "runs": "runs of blocks"}


def row_of_folder(measured: Measured, folder: Path) -> MeasuredRow:
    """The row that measured what is in a folder: its own weights, or the spec that they are still those of.

    Raises:
        InputError: there is none; or there is one of the folder, but its weights were others then.
    """
    artefact = read_compiled(folder) if kind_of_folder(folder) is not None else None
    own = [row for row in measured.variants if row.own is not None]
    if artefact is None or artefact.kind == "checkpoint":
        first = find_source(str(folder)) if artefact is None else artefact.source()
        contents = contents_of(transformers_of(first), None if artefact is None else artefact.variant)
        found = [row for row in own if row.own is not None and row.own.contents == contents]
        if found:
            return found[0]
    there = [row.name for row in own if row.own is not None and _is_same_place(row.own.path, folder)]
    if there:
        raise InputError(
            f"{folder} was changed since it was measured as {there[0]}: its weights are others now; evaluate it again"
        )
    return _row_of_plan(measured, folder, artefact)


def _row_of_plan(measured: Measured, folder: Path, artefact: Artefact | None) -> MeasuredRow:
    """The row of the spec that a folder was compiled from, if its weights are still those."""
    same = [] if artefact is None else rows_of_plan(measured, artefact.plan.hash, artefact.base)
    if artefact is not None and same:
        state = artefact.state()
        if state == "as compiled":
            return same[0]
        raise InputError(
            f"the weights of {folder} are {state}, so that the numbers of its spec ({same[0].name}) are not its own; "
            f"evaluate the folder: surgery evaluate {folder} --prompts FILE --out DIR"
        )
    raise InputError(no_row_text(measured, str(folder)))


def rows_of_plan(measured: Measured, plan_hash: str, base: Identity) -> list[MeasuredRow]:
    """The rows of specs with this plan, where it was this base that was measured."""
    known = {name: value for name, value in base.to_json().items() if name != "model"}
    if measured.recipe.get("model") != known:
        return []
    return [row for row in measured.variants if row.plan is not None and row.plan.hash == plan_hash]


def no_row_text(measured: Measured, what: str) -> str:
    """What to say of a folder or a spec that an evaluation has not measured."""
    names = ", ".join(row.name for row in measured.variants) or "none"
    return (
        f"the evaluation has no row of {what}, by its weights or by its plan and base model; it has measured {names}; "
        f"measure it: surgery evaluate {what} --prompts FILE --out DIR"
    )


def _is_same_place(path: str, folder: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(folder)


def section_of_row(measured: Measured, row: MeasuredRow) -> str:
    """What a model card says of what was measured: every metric with its interval, its N and what it was made with.

    Raises:
        InputError: the row has no number.
    """
    metrics = [metric for metric in measured.metrics if metric.name in row.numbers]
    if not metrics:
        raise InputError(f"the evaluation has no number of {row.name}; give one that has scored it")
    lines = ["| metric | this model | base model | N | better | made with |", "|---|---:|---:|---:|---|---|"]
    lines += [_line(metric, row.numbers[metric.name], measured.number(BASELINE, metric)) for metric in metrics]
    flags = [f"- {_text(metric.name)}: {_text(metric.flag)}" for metric in metrics if metric.flag]
    level = 100 * row.numbers[metrics[0].name].level
    parts = [
        "## How it was measured",
        f"{_subject(row)} beside its base model, from the same prompts and noise. Brackets are {level:g}% intervals "
        "over prompts; numbers paired with the base model's pictures or predictions say how far they are from those.",
        "\n".join(lines),
        "\n".join([*flags, *(f"- {line}" for line in _circumstances(measured, row))]),
    ]
    return "\n\n".join(parts)


def _subject(row: MeasuredRow) -> str:
    if row.own is None:
        return f"The spec that it was compiled from (`{_code(row.name)}`), run as a rewritten graph,"
    if row.own.state in (None, "as compiled"):
        return "Its weights"
    return f"Its weights ({row.own.state})"


def _line(metric: MeasuredMetric, number: Interval, base: Interval | None) -> str:
    better = "higher" if metric.higher_is_better else "lower"
    cells = [
        _text(metric.name),
        _number(number),
        "" if base is None else _number(base),
        str(number.num),
        better,
        _text(metric.made_with or "layer-surgery"),
    ]
    return f"| {' | '.join(cells)} |"


def _number(number: Interval) -> str:
    value = number_text(number.value)
    if number.low is None or number.high is None or number.low == number.high:
        return value
    return f"{value} [{number_text(number.low)}, {number_text(number.high)}]"


def _circumstances(measured: Measured, row: MeasuredRow) -> Iterator[str]:
    if row.cost is not None:
        shares = {COST_NAMES[name]: share(row.cost) for name, share in COSTS.items()}
        told = ", ".join(f"{name} {100 * share:.1f}%" for name, share in shares.items() if share is not None)
        yield f"of the base model's: {told}"
    recipe: Mapping[str, Any] = measured.recipe
    plain = ", ".join(f"{name} {_text(recipe[name])}" for name in MADE_WITH if name in recipe)
    yield f"{len(measured.prompts)} prompts; {plain}"
    if recipe.get("call"):
        yield f"called with `{_code(json.dumps(recipe['call']))}`"
    if isinstance(recipe.get("versions"), Mapping):
        yield "versions: " + ", ".join(f"{_text(name)} {_text(value)}" for name, value in recipe["versions"].items())


def _text(value: Any) -> str:
    return as_it_stands(one_line(value))


def _code(text: str) -> str:
    return one_line(text).replace("`", "'")
