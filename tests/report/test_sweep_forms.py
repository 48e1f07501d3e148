"""The form of a figure follows from the variables of a sweep: every variant is drawn once, where its numbers belong."""

import itertools

import pytest
from evaluations_made import STACK, plan_of
from swept_evaluations import ERROR, document_of, single_layers, variant

from surgery.report.evaluated import measured_from_json
from surgery.report.sweep_forms import CurveSet, PairMap, RowList, forms_of

LAYERS, COMPONENTS = 4, ("attn1", "ff")


def forms(*rows):
    """The forms, and that they hold every variant once."""
    measured = measured_from_json(document_of(list(rows)))
    found = forms_of(measured.variants)
    names = [row.name for form in found for row in form.rows]
    assert sorted(names) == sorted(row["name"] for row in rows)
    return found


def number_of(row):
    return row.numbers[ERROR].value


def swept(stem, **domains):
    """A sweep whose rows have no plans; the error counts them."""
    grid = [dict(zip(domains, values, strict=True)) for values in itertools.product(*domains.values())]
    return [
        variant(f"{stem} {number}", stem, point, {ERROR: (float(number), 0.1)}) for number, point in enumerate(grid)
    ]


def test_single_layers_are_a_curve_an_edit_over_all_layers_of_the_stack():
    value = {(layer, part): 10 * layer + number for layer in range(LAYERS) for number, part in enumerate(COMPONENTS)}
    (found,) = forms(*single_layers(LAYERS, COMPONENTS, lambda layer, part: value[layer, part]))
    assert isinstance(found, CurveSet) and (found.axis, found.num_layers) == (f"layer of {STACK}", LAYERS)
    for curve, part in zip(found.curves, COMPONENTS, strict=True):
        assert curve.label == f"{part} = zero"
        assert [(place, number_of(row)) for place, row in curve.points] == [(n, value[n, part]) for n in range(LAYERS)]


def test_several_specs_share_the_axis_of_layers_whatever_their_variables_are_called():
    skips = [
        variant(f"s {k}", "skips", {"k": k}, {ERROR: (1.0, 0.1)}, plan=plan_of({STACK: LAYERS}, STACK, k, "skip"))
        for k in (0, 2)
    ]
    one = variant("alone", "alone", {}, {ERROR: (1.0, 0.1)}, plan=plan_of({STACK: LAYERS}, STACK, 1, "skip"))
    (found,) = forms(*single_layers(LAYERS, COMPONENTS, lambda *_: 1.0), *skips, one)
    assert [curve.label for curve in found.curves] == ["attn1 = zero", "ff = zero", "skip"]
    assert [place for place, _ in found.curves[-1].points] == [0, 1, 2]


def test_one_number_is_curves_by_the_other_variables_and_two_are_maps():
    rows = [variant(f"c{s}{how}", "cuts", {"s": s, "how": how}, {ERROR: (s, 0.1)}) for s in (3, 1, 2) for how in "ab"]
    (curves,) = forms(*rows)
    assert isinstance(curves, CurveSet) and (curves.axis, curves.num_layers, curves.ends) == ("s", 0, (1, 3))
    assert {curve.label: [place for place, _ in curve.points] for curve in curves.curves} == {
        "cuts how=a": [1, 2, 3],
        "cuts how=b": [1, 2, 3],
    }
    (found,) = forms(*swept("pairs", start=[0, 1], length=[2, 3, 4]))
    assert isinstance(found, PairMap) and (found.x, found.y) == ("start", "length")
    assert {cell: number_of(row) for cell, row in found.cells.items()} == {
        (x, y): 3 * x + (y - 2) for x in (0, 1) for y in (2, 3, 4)
    }


@pytest.mark.parametrize(
    "rows",
    [
        [variant(name, name, {}, {ERROR: (1.0, 0.1)}) for name in ("b", "a")],
        [variant(f"h {how}", "hows", {"how": how}, {ERROR: (1.0, 0.1)}) for how in ("x", "y")],
        [variant("w", "w", {}, {ERROR: (1.0, 0.1)}, plan=plan_of({STACK: 4}, STACK, 1, "skip"))],
        [
            variant("t 1", "t", {"yes": True}, {ERROR: (1.0, 0.1)}),
            variant("t 2", "t", {"yes": False}, {ERROR: (1, 0.1)}),
        ],
    ],
    ids=["no variables", "words", "one layer", "truth"],
)
def test_what_has_no_number_is_a_list_in_its_own_order(rows):
    (found,) = forms(*rows)
    assert isinstance(found, RowList) and [row.name for row in found.rows] == [row["name"] for row in rows]


def test_two_rows_at_one_place_are_both_drawn():
    """The same sweep twice, under two names: one of them is a curve by its variable, and none is lost."""
    twice = [*single_layers(2, ("ff",), lambda *_: 1.0), *single_layers(2, ("ff",), lambda *_: 2.0, stem="again")]
    assert [len(form.rows) for form in forms(*twice)] == [2, 2]


def test_nothing_has_no_form():
    assert forms() == []
