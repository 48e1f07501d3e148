"""How sets of edits are looked for: greedily, by a beam, or all of them. Pure: what is asked of a problem is data.

`greedy` begins with the model as it is and adds one edit after the other, each time the one of least damage for what is
saved. `beam:W` goes on from the W best sets instead of the best. `exhaustive` measures every set that meets the budget
and would not with an edit fewer.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from surgery.errors import InputError
from surgery.experiment.search.edits import UNEDITED, Candidate, Edit
from surgery.spec.nearest import unknown_text

GREEDY, EXHAUSTIVE = "greedy", "exhaustive"
BEAM = re.compile(r"beam:(\d{1,4})")


class Priced(Protocol):
    """What is known of sets before one is measured."""

    def saved(self, candidate: Candidate) -> float:
        """How much of the budget's unit a set leaves out."""

    def is_met(self, candidate: Candidate) -> bool:
        """Whether it is within the budget."""


class Problem(Priced, Protocol):
    """What a method knows of what it solves."""

    def grow(self, candidate: Candidate) -> Sequence[Candidate]:
        """The sets with one edit more that can be planned, and save more."""

    def measure(self, candidates: Sequence[Candidate]) -> Mapping[Candidate, float]:
        """The damage of sets, on the half that is chosen by: less is better."""


def read_method(text: str) -> int | None:
    """The width of the beam, 1 of `greedy`, None of `exhaustive`.

    Raises:
        InputError: there is no such method.
    """
    if text == GREEDY:
        return 1
    if text == EXHAUSTIVE:
        return None
    found = BEAM.fullmatch(text)
    if found is None:
        raise InputError(unknown_text("method", text, (GREEDY, "beam:8", EXHAUSTIVE)))
    if not int(found[1]):
        raise InputError("a beam of width 0 goes nowhere; write one like beam:8")
    return int(found[1])


def search_by_beam(problem: Problem, width: int) -> None:
    """Have the sets measured that a beam of this width comes by."""
    beam: list[Candidate] = [UNEDITED]
    while beam:
        grown = list(dict.fromkeys(candidate for each in beam for candidate in problem.grow(each)))
        if not grown:
            return
        damage = problem.measure(grown)
        ranked = sorted(grown, key=lambda each: (damage[each] / problem.saved(each), sorted(each)))
        beam = [candidate for candidate in ranked[:width] if not problem.is_met(candidate)]


def minimal_sets(priced: Priced, edits: Sequence[Edit], add: "Add") -> Iterator[Candidate]:
    """Every set that meets the budget, and does not with any edit fewer, each once.

    Edits are taken in the order of what they save, the most first: so the last that was added saves least, and is the
    one without which the budget is missed.
    """
    ordered = sorted(edits, key=lambda edit: (-priced.saved(frozenset({edit})), edit))
    pending: list[tuple[Candidate, int]] = [(UNEDITED, 0)]
    while pending:
        candidate, start = pending.pop()
        for position in reversed(range(start, len(ordered))):
            grown = add(candidate, ordered[position])
            if grown is not None and not priced.is_met(grown):
                pending.append((grown, position + 1))
            elif grown is not None:
                yield grown


class Add(Protocol):
    """The set with an edit more; None where that can't be, or leaves an edit idle."""

    def __call__(self, candidate: Candidate, edit: Edit) -> Candidate | None: ...
