"""Methods on made problems: each finds what it promises, in as many measurements as it promises."""

import itertools
from dataclasses import dataclass, field
from random import Random

import pytest

from surgery.errors import InputError
from surgery.experiment.search.edits import Edit, with_edit
from surgery.experiment.search.methods import minimal_sets, read_method, search_by_beam

EDITS = tuple(Edit("blocks", index) for index in range(7))


@dataclass
class Made:
    """Damage by chance, but for what `damage` says; each edit saves its own part of what must go."""

    savings: dict
    limit: float
    seed: int = 0
    damage: dict = field(default_factory=dict)
    measured: dict = field(default_factory=dict)

    def grow(self, candidate):
        found = (with_edit(candidate, edit) for edit in self.savings)
        return [grown for grown in found if grown is not None]

    def measure(self, candidates):
        self.measured |= {candidate: self.damage_of(candidate) for candidate in candidates}
        return {candidate: self.measured[candidate] for candidate in candidates}

    def damage_of(self, candidate):
        return self.damage.get(candidate, len(candidate) + Random(f"{self.seed} {sorted(candidate)}").random())

    def saved(self, candidate):
        return sum(self.savings[edit] for edit in candidate)

    def is_met(self, candidate):
        return self.saved(candidate) >= self.limit

    @property
    def best(self):
        return min((damage, sorted(each)) for each, damage in self.measured.items() if self.is_met(each))[0]


def alike(limit, seed=0, **options):
    return Made(dict.fromkeys(EDITS, 1.0), limit, seed, **options)


def all_met(problem):
    """Every set that meets the budget and does not with an edit fewer, by trying all."""
    subsets = (frozenset(part) for size in range(8) for part in itertools.combinations(EDITS, size))
    return {each for each in subsets if problem.is_met(each) and not any(problem.is_met(each - {e}) for e in each)}


def exhaustive(problem):
    problem.measure(list(minimal_sets(problem, EDITS, with_edit)))
    return problem.best


@pytest.mark.parametrize("seed", range(5))
def test_exhaustive_is_every_set_that_would_not_do_with_an_edit_fewer(seed):
    """Whether edits save alike or not; each set once."""
    random = Random(seed)
    for savings in (dict.fromkeys(EDITS, 1.0), {edit: random.choice((1, 2, 3.5, 5)) for edit in EDITS}):
        problem = Made(savings, random.uniform(0.5, sum(savings.values())))
        found = list(minimal_sets(problem, EDITS, with_edit))
        assert len(found) == len(set(found)) and set(found) == all_met(problem)


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_is_between_greedy_and_exhaustive_once_it_is_as_wide_as_they_are_many(seed):
    """No beam beats all sets; the widest equals them, and width 1 is greedy. More is no law: a beam may lose to greedy
    on a later level."""
    for num in (2, 3, 4):
        best = exhaustive(alike(num, seed))
        found = []
        for width in (1, 3, 10_000):
            problem = alike(num, seed)
            search_by_beam(problem, width)
            found.append(problem.best)
        assert min(found) == found[-1] == best
        assert found[0] == greedy_by_hand(alike(num, seed))


def greedy_by_hand(problem):
    gone = frozenset()
    while not problem.is_met(gone):
        gone = min((gone | {edit} for edit in EDITS if edit not in gone), key=problem.damage_of)
    return problem.damage_of(gone)


@pytest.mark.parametrize("num", range(1, 8))
def test_greedy_measures_one_set_for_each_edit_that_is_left(num):
    problem = alike(num)
    search_by_beam(problem, 1)
    assert len(problem.measured) == sum(len(EDITS) - gone for gone in range(num))


def test_what_saves_more_may_do_more_damage():
    """Greedy goes by damage for what is saved: an edit of thrice the savings and twice the damage goes first."""
    dear, cheap = frozenset({EDITS[0]}), frozenset({EDITS[1]})
    problem = Made({EDITS[0]: 3.0, EDITS[1]: 1.0}, 3.0, damage={dear: 2.0, cheap: 1.0})
    search_by_beam(problem, 1)
    assert set(problem.measured) == {dear, cheap} and problem.best == 2.0


@pytest.mark.parametrize(("text", "width"), [("greedy", 1), ("beam:1", 1), ("beam:8", 8), ("exhaustive", None)])
def test_methods_are_read(text, width):
    assert read_method(text) == width


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("greedi", 'no method "greedi"; there are greedy, beam:8, exhaustive; did you mean "greedy"'),
        ("beam:0", "a beam of width 0 goes nowhere; write one like beam:8"),
        ("beam", 'no method "beam".*did you mean "beam:8"'),
        ("beam:-2", 'no method "beam:-2"'),
    ],
)
def test_other_methods_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        read_method(text)
