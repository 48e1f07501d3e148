"""A call and its flat form are two spellings of the same thing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surgery.tracing.arguments import Opaque, Passed, flatten_call, parameters_of, unflatten_call

PARAMETERS = ["x", "y", "z"]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.sampled_from([torch.float32, torch.device("cpu"), torch.Size([2, 3])]),
    st.builds(lambda n: torch.full((2,), float(n)), st.integers(0, 9)),
    st.builds(object),
    st.builds(slice, st.none() | st.integers(), st.integers(), st.none() | st.integers()),
    st.builds(range, st.integers(-3, 9), st.integers(-3, 9)),
    st.sets(st.integers(0, 99) | st.text(max_size=2), max_size=4),
    st.frozensets(st.booleans() | st.floats(allow_nan=False), max_size=3),
)
NAMES = st.sampled_from(["a", "b", "mask", "scale"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a is b
    if isinstance(a, (list, tuple)) and not isinstance(a, torch.Size):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


def takes_names(self, x=None, y=None, z=None, **named):
    return (x, y, z), named


def takes_more(self, x=None, y=None, *rest, z=None, **named):
    return (x, y, *rest), {"z": z, **named}


def takes_places(self, x=None, y=None, /, z=None, *rest, **named):
    return (x, y, z, *rest), named


@given(st.sampled_from([takes_names, takes_more, takes_places]), st.lists(VALUES, max_size=5), st.data())
def test_a_call_that_was_flattened_is_the_same_call(forward, args, data):
    kwargs = data.draw(st.dictionaries(NAMES, VALUES, max_size=3))
    args = args[: 3 if forward is takes_names else 5]
    call = flatten_call(args, kwargs, parameters_of(forward))
    positional, named = unflatten_call(call.structure, call.inputs)
    assert same(forward(None, *positional, **named), forward(None, *args, **kwargs))


@given(st.lists(VALUES, max_size=3), st.dictionaries(NAMES, VALUES, max_size=3))
def test_layouts_are_hashable_and_equal_for_equal_calls(args, kwargs):
    first, second = (flatten_call(args, kwargs, PARAMETERS) for _ in range(2))
    assert first.structure == second.structure
    assert hash(first.structure) == hash(second.structure)
    assert len(first.names) == len(first.inputs)


@given(VALUES)
def test_positional_and_keyword_spellings_are_one_call(value):
    assert flatten_call([value], {}, ["x"]).structure == flatten_call([], {"x": value}, ["x"]).structure


@pytest.mark.parametrize(("one", "other"), [(None, 1.0), (True, False), ("a", "b"), ([1.0], (1.0,)), ({}, [])])
def test_what_is_no_input_makes_another_layout(one, other):
    assert flatten_call([], {"x": one}, []).structure != flatten_call([], {"x": other}, []).structure


WRITTEN = [
    lambda: slice(1, None),
    lambda: slice(True, None),
    lambda: slice(1.0, None),
    lambda: range(0, 3, 2),
    lambda: range(0, 4, 2),
    lambda: {1, 2},
    lambda: {True, 2},
    lambda: {"1", 2},
    lambda: frozenset({1, 2}),
    lambda: {0.0},
    lambda: {-0.0},
    lambda: {float("nan")},
]


def test_fresh_slices_ranges_and_sets_are_the_same_where_they_are_written_the_same():
    layouts = [[flatten_call([], {"x": make()}, []).structure for _ in range(2)] for make in WRITTEN]
    assert all(first == second for first, second in layouts)
    assert len({first for first, _ in layouts}) == len(WRITTEN)


@pytest.mark.parametrize("make", [lambda: {(1, 2)}, lambda: slice(torch.ones(())), lambda: {object()}])
def test_what_has_other_parts_than_plain_ones_is_the_same_object_only(make):
    one, other = make(), make()
    layouts = [flatten_call([], {"x": value}, []).structure.items for value in (one, one, other)]
    assert layouts[0] == layouts[1] == (Passed(0, Opaque(one)),)
    assert layouts[2] == (Passed(0, Opaque(other)),) != layouts[0]


def test_a_set_is_handed_on_as_it_is():
    given = {1, 2}
    call = flatten_call([], {"x": given}, [])
    assert unflatten_call(call.structure, call.inputs)[1]["x"] is given


@pytest.mark.parametrize(("one", "other"), [(1, 2), (1.0, 2.0), (torch.ones(1), torch.ones(2, 2))])
def test_inputs_make_the_same_layout(one, other):
    assert flatten_call([], {"x": one}, []).structure == flatten_call([], {"x": other}, []).structure


def test_names_tell_where_an_input_is_from():
    call = flatten_call([1.0], {"kw": {"scale": 2.0, "list": [3.0, 4.0]}}, ["x"])
    assert call.names == ("x", "kw_scale", "kw_list_0", "kw_list_1")
    assert call.inputs == (1.0, 2.0, 3.0, 4.0)


def test_an_opaque_object_equals_itself_only():
    class Same:
        def __eq__(self, other):
            return True

        __hash__ = None

    value = Same()
    assert Opaque(value) == Opaque(value)
    assert Opaque(value) != Opaque(Same())
