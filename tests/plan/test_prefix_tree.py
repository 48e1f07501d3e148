"""The prefix tree of plans: how much of many variants is run once, and what is held meanwhile."""

import itertools
import random

import pytest

from surgery.plan.plan import Plan, ReplacedComponent
from surgery.plan.prefix_tree import Walk, count_runs, prefix_tree, steps_of, walks_through
from surgery.plan.schedule import Group, Layer, Repetition, Schedule

NUM_BLOCKS = 12
RNG = random.Random(3)


def plan_of(items, replacements=()):
    return Plan("Model", (Schedule("blocks", NUM_BLOCKS, tuple(items)),), tuple(replacements))


def skipping(*gone):
    return plan_of(Layer(index) for index in range(NUM_BLOCKS) if index not in gone)


def replacing(index, component="ff"):
    return plan_of(map(Layer, range(NUM_BLOCKS)), [ReplacedComponent("blocks", index, component, "zero")])


def subsets(num):
    return [skipping(*gone) for size in range(1, num + 1) for gone in itertools.combinations(range(NUM_BLOCKS), size)]


def walked_by_hand(plans, walk):
    """The runs of blocks of a walk, and the states that it holds: an oracle that keeps every state, and counts."""
    known = {}  # steps by number: tuples of these are compared quickly
    steps = (steps_of(plans[number], [("blocks", NUM_BLOCKS)]) for number in walk.numbers)
    sequences = [tuple(known.setdefault(step, len(known)) for step in each) for each in steps]
    runs = held = 0
    for position, sequence in enumerate(sequences):
        common = max(n for n in range(len(sequence) + 1) if _was_run(sequences[:position], sequence[:n]))
        runs += len(sequence) - common
        for end in range(common, len(sequence) + 1):
            ran = [*sequences[:position], sequence[:end]]
            needed = {_longest_run(ran, later) for later in sequences[position + 1 :]}
            held = max(held, len(needed - {sequence[:end]}))
    return runs, held


def _was_run(earlier, prefix):
    return not prefix or any(each[: len(prefix)] == prefix for each in earlier)


def _longest_run(ran, later):
    """The longest beginning of a later sequence that was run."""
    return max((later[:length] for length in range(len(later) + 1) if _was_run(ran, later[:length])), key=len)


def test_all_subsets_of_at_most_six_of_twelve_blocks_cost_a_fifth():
    """The figures of the problem: 2,509 subsets and the whole, 17,832 runs of blocks one by one, 3,301 in the tree."""
    plans = [skipping(), *subsets(6)]
    assert len(plans) == 2510
    assert (count_runs(plans), prefix_tree(plans).num_runs) == (17832, 3301)


def test_a_sweep_over_single_components_of_28_blocks_costs_what_its_triangle_does():
    blocks = 28
    whole = tuple(map(Layer, range(blocks)))
    plans = [
        Plan("Model", (Schedule("blocks", blocks, whole),), (ReplacedComponent("blocks", index, name, "zero"),))
        for index in range(blocks)
        for name in ("attn1", "attn2", "ff")
    ]
    assert count_runs(plans) == 84 * 28
    assert prefix_tree(plans).num_runs == 3 * sum(range(1, blocks + 1)) + blocks - 1


@pytest.mark.parametrize(
    "plans",
    [
        [skipping(index) for index in range(NUM_BLOCKS)],
        [skipping(), *subsets(2)],
        [replacing(index, name) for name in ("attn", "ff") for index in RNG.sample(range(NUM_BLOCKS), 8)],
        [skipping(*RNG.sample(range(NUM_BLOCKS), RNG.randrange(7))) for _ in range(20)],
        [skipping(3), skipping(3), skipping()],
    ],
    ids=["skips", "pairs", "components", "random", "twins"],
)
@pytest.mark.parametrize("max_held", [0, 1, 2, 50])
def test_walks_run_every_plan_once_within_what_they_may_hold(plans, max_held):
    tree = prefix_tree(plans)
    walks = walks_through(tree, max_held)
    assert sorted(number for walk in walks for number in walk.numbers) == list(range(len(plans)))
    for walk in walks:
        runs, held = walked_by_hand(plans, walk)
        assert runs == prefix_tree(plans, walk.numbers).num_runs
        assert held <= walk.held <= max_held
    if max_held == 50:
        assert len(walks) == 1
    if max_held == 0:
        assert len(walks) == len(set(plans))


def test_skips_of_single_blocks_hold_one_state():
    """The branch that goes on is walked last, so that nothing is held below it."""
    (walk,) = walks_through(prefix_tree([skipping(), *[skipping(index) for index in range(NUM_BLOCKS)]]), 100)
    assert walk.held == 1


def test_scales_groups_rounds_and_replacements_are_part_of_what_must_be_equal():
    whole = list(map(Layer, range(NUM_BLOCKS)))
    group, other = Group((Layer(0), Layer(1)), loops=2), Group((Layer(0), Layer(1)), "sum")
    plans = [
        plan_of(whole),
        plan_of([Layer(0, 0.5), *whole[1:]]),
        plan_of([group, *whole[2:]]),
        plan_of([other, *whole[2:]]),
        replacing(0),
        replacing(0, "attn"),
    ]
    assert prefix_tree(plans).num_runs == count_runs(plans)
    rounds = [plan_of([group, *whole[2:]]), plan_of([Group((Layer(0), Layer(1))), *whole[2:]])]
    assert prefix_tree(rounds).num_runs == count_runs(rounds) - 2


def test_a_repetition_is_its_rounds():
    twice = plan_of([Repetition((Layer(0), Layer(1)), 2), Layer(2)])
    assert prefix_tree([twice, plan_of(map(Layer, [0, 1, 0, 1, 2]))]).num_runs == 5


def test_a_thousand_repetitions_are_no_deeper_than_python_goes():
    plans = [plan_of([Repetition((Layer(0),), times)]) for times in range(1000, 4000, 500)]
    (walk,) = walks_through(prefix_tree(plans), 9)
    assert isinstance(walk, Walk)
    assert prefix_tree(plans).num_runs == 3500


def test_stacks_that_a_plan_does_not_name_run_as_they_are():
    inner = Schedule("refiner", 2, (Layer(1),))
    both = Plan("Model", (inner, *skipping(3).schedules))
    assert len(steps_of(skipping(3), [("refiner", 2), ("blocks", NUM_BLOCKS)])) == 2 + NUM_BLOCKS - 1
    assert prefix_tree([both, skipping(3)]).num_runs == 1 + 11 + 2 + 11
