import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.plan import schedule as schedule_module
from surgery.plan.plan import Plan, ReplacedComponent, plan_from_json, plan_from_text
from surgery.plan.schedule import (
    Group,
    Item,
    Layer,
    Repetition,
    Schedule,
    canonical,
    count_executions,
    iter_layers,
)
from surgery.plan.text import items_from_text, items_to_text

SCALES = st.sampled_from([1.0, 1.0, 1.0, 0.5, 0.0, -1.0, -0.25, 1e-5, 3e22, 1 / 3])
LAYERS = st.builds(Layer, st.integers(0, 9), SCALES)
GROUPS = st.builds(
    Group,
    st.lists(LAYERS, min_size=1, max_size=4).map(tuple),
    st.sampled_from(["mean", "sum"]),
    st.integers(1, 3),
)
ITEMS = st.recursive(
    LAYERS | GROUPS,
    lambda inner: st.builds(Repetition, st.lists(inner, min_size=1, max_size=3).map(tuple), st.integers(1, 3)),
    max_leaves=6,
)
SCHEDULES = st.lists(ITEMS, max_size=6).map(tuple)

Execution = tuple[Layer, ...] | tuple[frozenset[tuple[Layer, int]], str]


def execute(items: tuple[Item, ...]) -> list[Execution]:
    """What runs, one entry after the other: a layer, or a group as the counts of its members and how they combine."""
    done: list[Execution] = []
    for item in items:
        if isinstance(item, Layer):
            done.append((item,))
        elif isinstance(item, Repetition):
            for _ in range(item.times):
                done.extend(execute(item.items))
        elif len(item.layers) == 1:
            done.extend([(item.layers[0],)] * item.loops)
        else:
            members = frozenset((layer, item.layers.count(layer)) for layer in item.layers)
            done.extend([(members, item.combine)] * item.loops)
    return done


@given(SCHEDULES)
def test_canonical_runs_the_same(items):
    assert execute(canonical(items)) == execute(items)


@given(SCHEDULES)
def test_canonical_twice_is_canonical(items):
    assert canonical(canonical(items)) == canonical(items)


@given(SCHEDULES)
def test_items_are_read_back_from_their_text(items):
    settled = canonical(items)
    assert items_from_text(items_to_text(settled)) == settled


@given(SCHEDULES, SCHEDULES)
def test_two_canonical_schedules_have_one_text_only_if_they_are_equal(one, other):
    one, other = canonical(one), canonical(other)
    assert (items_to_text(one) == items_to_text(other)) == (one == other)


@given(SCHEDULES)
def test_counts_are_those_of_the_executions(items):
    counts: dict[int, int] = {}
    for execution in execute(items):
        if isinstance(execution[0], Layer):
            counts[execution[0].index] = counts.get(execution[0].index, 0) + 1
        else:
            for layer, times in execution[0]:
                counts[layer.index] = counts.get(layer.index, 0) + times
    assert count_executions(items) == counts


@given(SCHEDULES)
def test_layers_are_used_or_removed(items):
    schedule = Schedule("blocks", 10, items)
    assert sorted([*schedule.used, *schedule.removed]) == list(range(10))
    assert schedule.used == {layer.index for layer in iter_layers(items)} == set(count_executions(items))


def test_the_identity_of_28_blocks_is_written_0_28():
    schedule = Schedule("transformer_blocks", 28, tuple(Layer(index) for index in range(28)))
    assert schedule.is_identity
    assert items_to_text(schedule.items) == "0:28"
    assert schedule.removed == ()


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("-", ()),
        ("7", (Layer(7),)),
        ("0:2", (Layer(0), Layer(1))),
        ("1 0", (Layer(1), Layer(0))),
        ("3*0.5 4*-1", (Layer(3, 0.5), Layer(4, -1.0))),
        ("(4|5|6)x3", (Group((Layer(4), Layer(5), Layer(6)), loops=3),)),
        ("(4|5*0.5)+", (Group((Layer(4), Layer(5, 0.5)), "sum"),)),
        ("(4:6)x2", (Repetition((Layer(4), Layer(5)), 2),)),
        (
            "(0 (1|2)x2 (3)x4)x5",
            (Repetition((Layer(0), Group((Layer(1), Layer(2)), loops=2), Repetition((Layer(3),), 4)), 5),),
        ),
    ],
)
def test_a_schedule_has_one_text(text, items):
    assert items_to_text(items) == text
    assert items_from_text(text) == items


@pytest.mark.parametrize(
    ("items", "settled"),
    [
        ((Layer(1), Layer(1)), (Repetition((Layer(1),), 2),)),
        ((Repetition((Layer(1),), 2), Layer(1)), (Repetition((Layer(1),), 3),)),
        ((Layer(1, 0.5), Layer(1)), (Layer(1, 0.5), Layer(1))),
        ((Repetition((Layer(1), Layer(2)), 1),), (Layer(1), Layer(2))),
        ((Repetition((Repetition((Layer(1), Layer(2)), 2),), 3),), (Repetition((Layer(1), Layer(2)), 6),)),
        ((Repetition((Group((Layer(1), Layer(2))),), 3),), (Group((Layer(1), Layer(2)), loops=3),)),
        ((Group((Layer(1),), loops=3),), (Repetition((Layer(1),), 3),)),
        ((Group((Layer(1),)),), (Layer(1),)),
    ],
)
def test_the_canonical_form_of(items, settled):
    assert canonical(items) == settled


@pytest.mark.parametrize(
    "text", ["3:", "(1|2", "(1", "(1)", "x3", "(1|(2|3))", "1 )", "a", "1:2:3", "²", "3*", "(1|2)x"]
)
def test_a_malformed_schedule_is_refused(text):
    with pytest.raises(ValueError, match=r"schedule|expected|group"):
        items_from_text(text)


REPLACED = (
    ReplacedComponent("blocks", 3, "attn1", "mean", "sha256:0123"),
    ReplacedComponent("blocks", 4, "ff.net.0.proj", "zero"),
)
PLAN = Plan("PixArtTransformer2DModel", (Schedule("blocks", 8, canonical((Layer(0), Layer(0), Layer(5)))),), REPLACED)


def test_a_plan_is_read_back_from_its_text_and_json():
    assert plan_from_text(PLAN.text) == PLAN
    assert plan_from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN


def test_the_text_of_a_plan_is_pinned():
    assert PLAN.text == (
        "model PixArtTransformer2DModel\n"
        "blocks[8]: (0)x2 5\n"
        'blocks[3].attn1 = mean from "sha256:0123"\n'
        "blocks[4].ff.net.0.proj = zero\n"
    )


def test_the_hash_of_a_plan_is_pinned():
    assert PLAN.hash == "8ce230be7e3c62e9d59dcc72453ede52b153f5f8749fcce3303b1d0caeaddf85"


def test_the_hash_differs_where_plans_differ():
    others = [
        replace(PLAN, class_name="Other"),
        replace(PLAN, replacements=()),
        replace(PLAN, schedules=(Schedule("blocks", 8, tuple(Layer(index) for index in range(8))),)),
        replace(PLAN, schedules=(replace(PLAN.schedules[0], num_blocks=9),)),
    ]
    assert len({PLAN.hash, *(other.hash for other in others)}) == 1 + len(others)


def test_a_plan_that_was_changed_after_it_was_written_is_refused():
    data = PLAN.to_json()
    data["schedules"][0]["schedule"] = "0:8"
    with pytest.raises(ValueError, match="it was changed after it was written"):
        plan_from_json(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blocks[8]: 0:8\n", "a plan begins with `model CLASS`"),
        ("model A\nblocks 0:8\n", "a line of a plan is a schedule"),
    ],
)
def test_a_malformed_plan_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        plan_from_text(text)


def test_the_law_of_canonical_fails_when_a_merge_forgets_a_round(monkeypatch):
    as_repeats = schedule_module._as_repeats
    monkeypatch.setattr(schedule_module, "_as_repeats", lambda item: (as_repeats(item)[0], 1))
    items = (Repetition((Layer(1),), 2), Layer(1))
    assert execute(canonical(items)) != execute(items)


def test_the_round_trip_fails_when_scales_are_written_with_six_digits(monkeypatch):
    monkeypatch.setattr("surgery.plan.text._number_text", lambda value: f"{value:.6f}")
    items = (Layer(1, random.Random(0).random()),)
    assert items_from_text(items_to_text(items)) != items
