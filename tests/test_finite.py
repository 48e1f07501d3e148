"""JSON of the program holds no NaN and no infinity, which others refuse to read: null stands there, nothing is lost."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.finite import NOT_FINITE, from_finite, to_finite

NUMBERS = st.floats(allow_subnormal=False) | st.integers() | st.none() | st.booleans() | st.text(max_size=3)
KEYS = st.text(alphabet="a0/~", max_size=3)
DOCUMENTS = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


@given(st.dictionaries(KEYS, DOCUMENTS) | st.lists(st.dictionaries(KEYS, DOCUMENTS)))
def test_a_document_comes_back_from_strict_json_as_it_was(document):
    text = json.dumps(to_finite(document), allow_nan=False)
    assert repr(from_finite(json.loads(text, parse_constant=refuse))) == repr(document)


def test_what_was_not_finite_is_null_and_named_by_its_place():
    document = {"rows": [{"value": math.inf, "a/b": (1.0, math.nan)}], "none": None}
    assert to_finite(document) == {
        "rows": [{"value": None, "a/b": [1.0, None]}],
        "none": None,
        NOT_FINITE: {"/rows/0/value": "Infinity", "/rows/0/a~1b/1": "NaN"},
    }


def test_a_finite_document_and_one_of_older_versions_are_what_they_were():
    assert to_finite({"a": [1, 2.5, {"b": None}]}) == {"a": [1, 2.5, {"b": None}]}
    assert from_finite(json.loads('{"a": Infinity}')) == {"a": math.inf}


@pytest.mark.parametrize(
    ("named", "message"),
    [({"/b": "Huge"}, "Huge"), ({"/a/7": "NaN"}, "out of range"), ({"/a/b": "NaN"}, "invalid literal")],
)
def test_a_place_that_is_not_there_is_damage(named, message):
    with pytest.raises((KeyError, IndexError, ValueError), match=message):
        from_finite({"a": [None], NOT_FINITE: named})
