"""What an exhaustive search would measure, before it does."""

from itertools import islice
from math import ceil, comb

from surgery.errors import InputError
from surgery.experiment.search.edits import Candidate
from surgery.experiment.search.methods import EXHAUSTIVE, minimal_sets
from surgery.experiment.search.objective import Objective
from surgery.experiment.search.problem import Sets
from surgery.progress import say_stage


def price_exhaustive(sets: Sets, objective: Objective, most: int, num_forwards: int) -> list[Candidate]:
    """All sets that meet the budget and would not with an edit fewer, with their price told.

    `num_forwards` are those that measuring one set takes: a prompt and timestep each.

    Raises:
        InputError: there are more than `most`.
    """
    limit, savings = sets.full - sets.limit, sorted(sets.saved(frozenset({edit})) for edit in sets.useful)
    if savings[-1] - savings[0] <= 1e-9 * sets.full:  # all save alike: they can be counted without being made
        num_edits = ceil((limit - 1e-9 * sets.full) / savings[0])
        refuse_too_many(comb(len(savings), num_edits), most, num_forwards, is_more=False)
    found = list(islice(minimal_sets(sets, sets.useful, sets.add_alone), most + 1))
    refuse_too_many(len(found), most, num_forwards, is_more=len(found) > most)
    plans = [sets.planned(candidate).plan for candidate in found]
    runs = objective.block_runs(plans) if sets.num_windows == 1 else None
    price = "" if runs is None else f", at most {runs * num_forwards:,.0f} runs of blocks"
    say_stage(f"{EXHAUSTIVE}: {len(found):,} sets{price}")
    return found


def refuse_too_many(number: int, most: int, num_forwards: int, *, is_more: bool) -> None:
    """Raise InputError where an exhaustive search would measure more sets than it may."""
    if number <= most:
        return
    least = "more than " if is_more else ""
    number = most if is_more else number
    raise InputError(
        f"an exhaustive search would measure {least}{number:,} sets in up to {least}{number * num_forwards:,} runs of "
        f"the model, {num_forwards:,} a set, and at most {most:,} sets are measured; take --method beam:8 or greedy, "
        "forbid more, or give --max-sets"
    )
