"""A search -> the files of its folder: the specs of its front, its numbers, their figure, and a page."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.experiment.search.chosen_spec import CHOSEN, spec_names, write_chosen
from surgery.finite import to_finite
from surgery.outputs import added_files, own_folder
from surgery.written import read_written

if TYPE_CHECKING:
    from surgery.experiment.search.conclusion import Search
    from surgery.experiment.search.front import FrontPoint
    from surgery.experiment.search.objective import Damage
    from surgery.experiment.search.request import SearchRequest

COMMAND = "search"
NUMBERS, TABLE, PAGE = "search.json", "front.csv", "search.html"
FIGURES = ("search.png", "search.svg")
NUMBER_COLUMNS = ("chosen", "held_out", "held_out_low", "held_out_high", "gap")
COLUMNS = ("spec", "amount", "share", "within_budget", *NUMBER_COLUMNS, "edits")


def search_into(
    request: "SearchRequest", *, force: bool, damage: "Damage | None" = None
) -> tuple["Search", list[Path]]:
    """Run a search and write what came of it into its folder; the files for people.

    Raises:
        InputError: the folder is not empty and not one of a search; it holds the results of another request, and there
            is no `force`; another run is writing it; or as `run_search`.
    """
    from surgery.experiment.search.request import key_of_request
    from surgery.experiment.search.run_search import run_search

    key = key_of_request(request)
    with own_folder(request.out, COMMAND, key, force=force):
        search = run_search(request, damage)
        return search, write_search(search, request.out, key)


def write_search(search: "Search", out: Path, key: str = "") -> list[Path]:
    """Write everything; the results of another request, of another `key`, give way."""
    from surgery.report.plot_profile import render
    from surgery.report.search_figure import draw_search
    from surgery.report.search_page import render_search
    from surgery.report.themes import LIGHT

    before = read_written(out, COMMAND)
    is_same = before is not None and before.request == key
    specs = {name: write_chosen(search, point) for name, point in spec_names(search).items()}
    for name, text in specs.items():
        refuse_other_plan(text, spec_names(search)[name])
    with added_files(out, COMMAND, force=True, request=key, beside_others=is_same) as folder:
        for name, text in specs.items():
            (folder / name).write_text(text, encoding="utf-8")
        document = json.dumps(to_finite(search_to_json(search)), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / NUMBERS).write_text(document + "\n", encoding="utf-8")
        (folder / TABLE).write_text(front_table(search), encoding="utf-8", newline="")
        for name in FIGURES:
            (folder / name).write_bytes(render(draw_search(search, LIGHT), "svg" if name.endswith("svg") else "png"))
        (folder / PAGE).write_text(render_search(search, specs), encoding="utf-8")
    return [out / name for name in (*specs, NUMBERS, TABLE, *FIGURES, PAGE)]


def refuse_other_plan(text: str, point: "FrontPoint") -> None:
    """A spec that is written must be the plan that was measured."""
    from surgery.plan.planned import plan_spec
    from surgery.spec.load import read_spec

    planned = plan_spec(read_spec(text), point.planned.anatomy)
    assert planned.plan.hash == point.planned.plan.hash, "what is written is what was measured"


def search_to_json(search: "Search") -> dict[str, Any]:
    """Plain data for `--json` and `search.json`."""
    names = {id(point): name for name, point in spec_names(search).items()}
    request = search.request
    return {
        "model": request.model,
        "budget": {"text": search.budget.text, "kind": search.budget.kind, "limit": search.limit, "full": search.full},
        "method": request.method,
        "units": request.units,
        "windows": request.windows,
        "forbid": list(request.forbid),
        "objective": request.objective,
        "chosen": CHOSEN,
        "front": [{"spec": names.get(id(point)), **point.to_json()} for point in search.front],
        "cost": {
            half.name: {
                "prompts": len(half),
                "sets": search.spent[half.name].sets,
                "block_runs": search.spent[half.name].runs,
                "model_runs": search.model_runs(half),
            }
            for half in search.halves
        },
        "measured": [{"edits": text, "amount": amount, "damage": damage} for text, amount, damage in search.measured],
        "notes": list(search.notes),
        "recipe": dict(search.recipe),
    }


def front_table(search: "Search") -> str:
    """The front as the text of a CSV file, a line a point."""
    names = {id(point): name for name, point in spec_names(search).items()}
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in search.front:
        unseen = point.held_out_interval
        numbers = (point.chosen_interval.value, unseen.value, unseen.low, unseen.high, point.gap.value)
        shown = ["" if number is None else repr(number) for number in numbers]
        share = point.amount / search.full
        writer.writerow([names.get(id(point), ""), point.amount, share, point.is_met, *shown, point.text])
    return target.getvalue()
