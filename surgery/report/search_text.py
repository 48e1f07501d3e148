"""A search in words: its front as a table, what was chosen, and what it took."""

from typing import TYPE_CHECKING

from surgery.experiment.search.budget import UNIT_TEXTS, amount_text
from surgery.experiment.search.chosen_spec import interval_text, spec_names, spent_text
from surgery.text_table import table

if TYPE_CHECKING:
    from surgery.experiment.search.conclusion import Search


def search_text(search: "Search") -> str:
    """The table of the front, and the lines below it."""
    names = {id(point): name for name, point in spec_names(search).items()}
    choosing, held_out = search.halves
    rows = [["spec", search.budget.kind, "chosen by", "held out", "gap", "left out"]]
    for point in search.front:
        numbers = map(interval_text, (point.chosen_interval, point.held_out_interval, point.gap))
        rows.append([names.get(id(point), "-"), amount_text(point.amount), *numbers, point.text])
    unit = UNIT_TEXTS[search.budget.kind]
    lines = [
        f"{search.request.objective} (less is better) against {unit}; {len(choosing)} prompts to choose by, "
        f"{len(held_out)} held out; +- is half of the 95% interval",
        table(rows, right={1}, wrap={5}),
        f"the budget is {search.budget.text}: at most {amount_text(search.limit)} of {amount_text(search.full)} {unit}",
        f"it took: {spent_text(search)}",
        *(f"note: {note}" for note in search.notes),
    ]
    return "\n".join(lines)
