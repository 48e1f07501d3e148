"""What operations make of a schedule, against what they make of the list of all that it runs. No spec is read."""

import random

from hypothesis import given
from hypothesis import strategies as st

from surgery.plan import edits
from surgery.plan.schedule import Group, Layer, Repetition, canonical, count_executions, iter_layers, unroll

NUM = 8
LAYERS = st.builds(Layer, st.integers(0, NUM - 1), st.sampled_from([1.0, 0.5, 2.0]))
GROUPS = st.builds(Group, st.lists(LAYERS, min_size=2, max_size=3).map(tuple), st.sampled_from(["mean", "sum"]))
FLAT = st.lists(LAYERS | GROUPS, min_size=1, max_size=6).map(tuple)
REPETITIONS = st.builds(Repetition, FLAT, st.integers(2, 3))
ITEMS = st.lists(LAYERS | GROUPS | REPETITIONS, min_size=1, max_size=6).map(tuple)
CHOSEN = st.frozensets(st.integers(0, NUM - 1))


@st.composite
def edited(draw):
    """Items, and some positions of them, ascending."""
    items = draw(ITEMS)
    positions = draw(st.sets(st.integers(0, len(items) - 1), min_size=1))
    return items, sorted(positions)


@st.composite
def run_of_items(draw):
    """Items, and positions that are neighbours."""
    items = draw(ITEMS)
    start = draw(st.integers(0, len(items) - 1))
    return items, list(range(start, draw(st.integers(start + 1, len(items)))))


def runs(items):
    """All layers that run, one after the other."""
    return list(unroll(items))


@given(ITEMS, CHOSEN)
def test_without_is_the_list_without(items, chosen):
    assert runs(edits.without(items, chosen)) == [layer for layer in runs(items) if layer.index not in chosen]
    assert edits.without(edits.without(items, chosen), chosen) == edits.without(items, chosen)


@given(ITEMS, CHOSEN)
def test_every_item_is_covered_partly_covered_or_not_touched(items, chosen):
    """And a selection that covers no item partly is that of its positions."""
    covered = edits.covered_positions(items, chosen)
    torn = edits.partly_covered(items, chosen)
    for at, item in enumerate(items):
        inside = {layer.index in chosen for layer in iter_layers((item,))}
        assert (at in covered) == (inside == {True})
    assert (torn is None) == all(len({layer.index in chosen for layer in iter_layers((item,))}) == 1 for item in items)


@given(edited())
def test_to_reverse_twice_is_to_do_nothing(case):
    items, positions = case
    once = edits.reversed_(items, positions)
    assert [once[at] for at in positions] == [items[at] for at in reversed(positions)]
    assert edits.reversed_(once, positions) == items


@given(edited(), st.integers(0, 99))
def test_a_shuffle_is_that_of_random_and_moves_nothing_else(case, seed):
    items, positions = case
    expected = [items[at] for at in positions]
    random.Random(seed).shuffle(expected)
    after = edits.shuffled(items, positions, seed)
    assert [after[at] for at in positions] == expected
    assert all(after[at] == item for at, item in enumerate(items) if at not in positions)


@given(edited(), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([0.25, 4.0]))
def test_scales_multiply(case, first, second):
    items, positions = case
    scaled = edits.scaled(items, positions, first * second)
    assert edits.scaled(edits.scaled(items, positions, first), positions, second) == scaled
    for before, after in zip(runs(items), runs(scaled), strict=True):
        assert before.index == after.index and after.scale in (before.scale, before.scale * first * second)


@given(run_of_items(), st.integers(1, 4))
def test_what_is_repeated_runs_so_often_where_it_stood(case, times):
    items, positions = case
    first, last = positions[0], positions[-1] + 1
    after = runs(edits.repeated(items, positions, times))
    assert after == runs(items[:first]) + runs(items[first:last]) * times + runs(items[last:])


@given(edited(), LAYERS)
def test_a_layer_that_fills_places_runs_once_in_each(case, layer):
    items, positions = case
    after = edits.filled(items, positions, layer)
    assert [item for at, item in enumerate(after) if at not in positions] == [
        item for at, item in enumerate(items) if at not in positions
    ]
    assert all(after[at] == layer for at in positions)


@given(run_of_items(), st.integers(1, 3))
def test_layers_are_grouped_and_nothing_else_is(case, loops):
    items, positions = case
    members = [items[at] for at in positions]
    after = edits.grouped(items, positions, "mean", loops)
    if not all(isinstance(item, Layer) for item in members):
        assert after is None
        return
    assert after == (*items[: positions[0]], Group(tuple(members), "mean", loops), *items[positions[-1] + 1 :])


@given(edited())
def test_positions_with_nothing_between_are_neighbours(case):
    items, positions = case
    between = edits.items_between(items, positions)
    assert len(between) == positions[-1] - positions[0] + 1 - len(positions)
    assert (not between) == (positions == list(range(positions[0], positions[-1] + 1)))


@given(ITEMS, CHOSEN)
def test_an_edit_of_the_canonical_form_runs_the_same(items, chosen):
    one, other = edits.without(items, chosen), edits.without(canonical(items), chosen)
    assert count_executions(canonical(one)) == count_executions(canonical(other))
