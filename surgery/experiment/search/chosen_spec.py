"""A point of the front as a spec for people: its comments say why each edit is in it, and what else was measured."""

import json
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from surgery.experiment.search.budget import UNIT_TEXTS, amount_text
from surgery.experiment.search.edits import ALWAYS, Edit, window_of
from surgery.text_table import lay_out

if TYPE_CHECKING:
    from surgery.experiment.search.conclusion import Search
    from surgery.experiment.search.front import FrontPoint, Neighbour, Reason
    from surgery.metrics.intervals import Interval

CHOSEN = "chosen.yaml"
LINE = 116  # characters of a comment
WARNING = (
    "The least damage of this kind does not draw the best pictures for certain, and what wins may be another after "
    "healing: evaluate it before you build on it."
)


def spec_names(search: "Search") -> dict[str, "FrontPoint"]:
    """The file of each point's spec: `front_01.yaml` is the one of fewest edits, `chosen.yaml` the best within."""
    edited = [point for point in search.front if point.candidate and point is not search.chosen]
    digits = max(2, len(str(len(edited))))
    others = {f"front_{number:0{digits}}.yaml": point for number, point in enumerate(edited, 1)}
    return {CHOSEN: search.chosen, **others}


def write_chosen(search: "Search", point: "FrontPoint") -> str:
    """The text of the spec."""
    comments = "".join(_comment(text) for text in _facts(search, point))
    reasons = "".join(f"  # {line}\n" for line in _reasons(search, point))
    title = f"title: {json.dumps(_title(search, point), ensure_ascii=False)}\n"
    return comments + point.spec_text.replace("operations:\n", f"{title}operations:\n{reasons}", 1)


def interval_text(interval: "Interval") -> str:
    """`0.615+-0.012`: the value, and half of its 95% interval where there is one."""
    half = "" if interval.low is None or interval.high is None else f"+-{(interval.high - interval.low) / 2:.2g}"
    return f"{interval.value:.4g}{half}"


def left_text(search: "Search", amount: float) -> str:
    """`9 of 12 blocks (75%)`."""
    share = 100 * amount / search.full
    return f"{amount_text(amount)} of {amount_text(search.full)} {UNIT_TEXTS[search.budget.kind]} ({share:.4g}%)"


def spent_text(search: "Search") -> str:
    """What the search took, for both halves: sets, runs of blocks, and of the model for each prompt and timestep."""
    parts = []
    for half in search.halves:
        spent, runs = search.spent[half.name], search.model_runs(half)
        counted = (
            "" if runs is None else f", {spent.runs:,.0f} block runs: {runs:.1f} of the model a prompt and timestep"
        )
        parts.append(f"{half.name} {spent.sets} sets on {len(half)} prompts{counted}")
    return "; ".join(parts)


def _facts(search: "Search", point: "FrontPoint") -> Iterator[str]:
    request, (choosing, held_out) = search.request, search.halves
    windows = f" in {request.windows} windows" if request.windows > 1 else ""
    yield (
        f"Found by `surgery search`: {request.units}{windows}, by {request.objective}, {request.method}, for the "
        f"budget {search.budget.text}."
    )
    is_met = "within the budget" if point.is_met else "on the way to the budget, and not within it"
    yield f"Leaves {left_text(search, point.amount)}: {is_met}."
    yield (
        f"Damage {interval_text(point.chosen_interval)} on the {len(choosing)} prompts that it was chosen by, "
        f"{interval_text(point.held_out_interval)} on {len(held_out)} that the search has not seen; the gap is "
        f"{interval_text(point.gap)} (95% intervals)."
    )
    yield f"What the search took: {spent_text(search)}."
    yield WARNING


def _title(search: "Search", point: "FrontPoint") -> str:
    left = f"{amount_text(point.amount)} of {amount_text(search.full)} {UNIT_TEXTS[search.budget.kind]}"
    return f"{left}, chosen by {search.request.objective}"


def _reasons(search: "Search", point: "FrontPoint") -> list[str]:
    """A line an edit, then the next best sets."""
    num_windows = search.request.windows
    head = ["left out", *(["when"] if num_windows > 1 else []), "alone", "without it", "best that keeps it, as cheap"]
    rows = [head]
    for reason in point.reasons:
        when = [_when(reason.edit, num_windows)] if num_windows > 1 else []
        rows.append([reason.edit.text, *when, _number(reason.alone), _number(reason.without), _instead(reason)])
    lines = ["Damage while choosing:", *lay_out(rows, right={len(head) - 3, len(head) - 2}).splitlines()]
    lines += [f"next best, as cheap: {_neighbour(each)}" for each in point.neighbours]
    return [part for line in lines for part in (textwrap.wrap(line, LINE) if line.startswith("next") else [line])]


def _when(edit: Edit, num_windows: int) -> str:
    if edit.window == ALWAYS:
        return "always"
    low, high = window_of(edit.window, num_windows)
    return f"{low:.3g}-{high:.3g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _instead(reason: "Reason") -> str:
    return "none measured" if reason.instead is None else _neighbour(reason.instead)


def _neighbour(neighbour: "Neighbour") -> str:
    return f"{neighbour.damage:.4f} {neighbour.text}"


def _comment(text: str) -> str:
    """A paragraph as comment lines."""
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, LINE, break_on_hyphens=False))
