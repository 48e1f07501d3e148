"""Figures of metrics: readable whatever there is to draw, at most two screens tall, and what is left out is said."""

import pytest
from drawn_texts import cut_off, overlaps, texts_of
from evaluations_made import STACK, plan_of
from swept_evaluations import ERROR, SCORE, SSIM, document_of, single_layers, variant

from surgery.report.cost_figures import costs_of, front_of, priced_rows
from surgery.report.evaluated import measured_from_json
from surgery.report.evaluation_figure import TWO_SCREENS, draw_measured
from surgery.report.metric_figures import MAX_ROWS, cost_text, figures_of, shown_rows
from surgery.report.themes import DARK, LIGHT


def listed(number):
    """Variants of specs without variables."""
    return [
        variant(f"a_spec_with_a_name_{n}", f"s{n}", {}, {ERROR: (n / 10, 0.01), SSIM: (0.9, 0.1), SCORE: (70.0, 1.0)})
        for n in range(number)
    ]


def paired(number):
    return [
        variant(f"p {x} {y}", "p", {"x": x, "y": y}, {ERROR: (x * y, 0.1)}) for x in range(number) for y in range(3)
    ]


SWEEPS = {
    "curves": lambda: single_layers(12, ("attn1", "attn2", "ff"), lambda layer, part: 0.01 * layer + 0.001 * len(part)),
    "list": lambda: listed(11),
    "long list": lambda: listed(200),
    "map": lambda: paired(5),
    "all at once": lambda: [*single_layers(4, ("ff",), lambda *_: 0.1), *paired(3), *listed(30)],
    "nothing": list,
}


@pytest.mark.parametrize("what", SWEEPS)
def test_a_sheet_is_readable_and_at_most_two_screens_tall(what):
    measured = measured_from_json(document_of(SWEEPS[what]()))
    figure = draw_measured(measured, DARK)
    width, height = figure.get_size_inches()
    assert height <= TWO_SCREENS + 0.01 and 6 <= width <= 22
    texts = texts_of(figure)
    assert (overlaps(texts), cut_off(texts, figure)) == ([], [])
    assert "N = 12" in figure.get_suptitle()
    if what == "long list":
        num = sum(text.startswith("a_spec") for text, _ in texts)
        assert f"{200 - num} between them are left out" in figure.get_supxlabel()
        assert {"a_spec_with_a_name_0", "a_spec_with_a_name_199", "..."} <= {text for text, _ in texts}


@pytest.mark.parametrize("what", ["curves", "list", "map"])
def test_a_figure_alone_says_what_it_is_of_and_none_of_its_texts_lie_on_another(what):
    measured = measured_from_json(document_of(SWEEPS[what]()))
    for one in figures_of(measured, measured.metric(ERROR), LIGHT):
        texts = texts_of(one.figure)
        assert (overlaps(texts), cut_off(texts, one.figure)) == ([], [])
        assert any(text.startswith("denoising error") for text, _ in texts)
        assert f"N = 12, {cost_text(measured.variants)}" in one.figure.get_suptitle()


def test_of_many_the_best_and_the_worst_are_shown():
    measured = measured_from_json(document_of(listed(99)))
    rows = shown_rows(measured.variants, measured.metric(ERROR), MAX_ROWS)
    values = [None if row is None else row.numbers[ERROR].value for row in rows]
    assert len(rows) <= MAX_ROWS and values.count(None) == 1
    gap = values.index(None)
    assert values[:gap] == [n / 10 for n in range(gap)] and values[-1] == 9.8


def test_no_variant_is_both_cheaper_and_better_than_one_on_the_front():
    """Against all pairs; equals are both on it; the baseline is, as nothing is better."""
    rows = [
        variant(f"v{n}", f"v{n}", {}, {ERROR: (error, 0.1)}, share=share)
        for n, (share, error) in enumerate([(0.9, 0.3), (0.9, 0.3), (0.8, 0.5), (0.85, 0.6), (0.95, 0.3), (0.7, 0.9)])
    ]
    measured = measured_from_json(document_of(rows))
    points = priced_rows(measured, measured.metric(ERROR), costs_of(measured)["parameters"])
    expected = {
        one.name
        for one in points
        if not any(
            other.share <= one.share
            and other.value <= one.value
            and (other.share, other.value) != (one.share, one.value)
            for other in points
        )
    }
    assert {point.name for point in front_of(points, higher_is_better=False)} == expected
    assert expected == {"v5", "v2", "v0", "v1", "baseline"}
    assert [point.name for point in front_of(points, higher_is_better=True)] == ["v5"]


def test_the_edit_of_a_layer_is_known_by_its_plan_and_not_by_names():
    rows = [
        variant(f"x{k}", f"x{k}", {}, {ERROR: (k, 0.1)}, plan=plan_of({STACK: 6}, STACK, k, "skip")) for k in (4, 1)
    ]
    measured = measured_from_json(document_of(rows))
    (curves,) = figures_of(measured, measured.metric(ERROR), LIGHT)
    line = next(
        line
        for line in curves.figure.axes[0].lines
        if line.get_label().startswith("_child") and len(line.get_xdata()) == 2
    )
    assert list(line.get_ydata()) == [1, 4]
