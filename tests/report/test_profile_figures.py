"""Figures of profiles: no text lies on another or is cut off, gaps are gaps, and numbers stand where they belong."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from draft_figures import drawing_drafts
from drawn_texts import cut_off, overlaps, texts_of
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from surgery.errors import InputError
from surgery.profiles.groups import find_groups
from surgery.report.panels import bin_labels, color_scale, spread_labels, tick_positions
from surgery.report.plot_profile import KINDS, draw_stack, plot_profile, render
from surgery.report.profile_figures import (
    best_starts,
    draw_curves,
    draw_heatmaps,
    heatmap_variants,
    span_cells,
    spans_decades,
)
from surgery.report.similarity_figures import (
    WHOLE_STATES,
    SimilarityView,
    bins_to_draw,
    draw_similarity,
    draw_similarity_by_time,
)
from surgery.report.themes import DARK, LIGHT
from surgery.written import MARKER

STACK = "transformer_blocks"
TEXT, IMAGE = "encoder_hidden_states", "hidden_states"
ALWAYS = [kind for kind in KINDS if kind not in ("similarity_by_time", "combined")]  # drawn of every profile


def figures(profile, theme=LIGHT, num_groups=3, stack=STACK, view=WHOLE_STATES, by_time=False):
    known = profile.find_stack(stack)
    groups = find_groups(profile, stack, num_groups=num_groups) if known.num_blocks > num_groups else None
    return dict(draw_stack(profile, known, groups, theme, view, by_time=by_time))


def drawn_alone(kind, profile, view=WHOLE_STATES, groups=None):
    """The figure of one kind, as `draw_stack` makes it; all others of a profile take longer than what is looked at."""
    stack = profile.find_stack(STACK)
    match kind:
        case "similarity":
            return draw_similarity(profile, stack, groups, LIGHT, view)
        case "similarity_by_time":
            return draw_similarity_by_time(profile, stack, LIGHT, view)
        case "heatmaps":
            return draw_heatmaps(profile, stack, LIGHT)
        case "curves":
            return draw_curves(profile, stack, LIGHT)


def shown_cells(figure):
    """The arrays of all heat maps, in order."""
    return [image.get_array() for axes in figure.axes for image in axes.images]


BOTH = {"streams": (TEXT, IMAGE)}
CASES = {
    "one layer": {"stacks": [(STACK, 1)]},
    "4 layers": {
        "stacks": [(STACK, 4)],
        "branches": ("conditional", "unconditional"),
        "text_ends_early": True,
        "empty_bins": (3,),
        **BOTH,
    },
    "57 layers": {"stacks": [(STACK, 57)], "starts": (1, 2, 3, 54, 55, 56), "num_bins": 10, "empty_bins": (0,), **BOTH},
    "100 bins": {
        "stacks": [(STACK, 28)],
        "num_bins": 100,
        "empty_bins": range(3, 60, 2),
        "model": f"/a/very/{30 * 'long'}",
    },
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case == "57 layers" else ()) for case in CASES]
)
def test_no_text_lies_on_another_or_is_cut_off(made, case):
    profile = made.make_profile(**CASES[case])
    drawn = figures(profile, num_groups=7 if case == "57 layers" else 3, by_time=True)
    assert set(drawn) == set(KINDS) - (set() if len(profile.stacks[0].streams) > 1 else {"combined"})
    for kind, figure in drawn.items():
        texts = texts_of(figure)
        assert (kind, overlaps(texts)) == (kind, [])
        assert (kind, cut_off(texts, figure)) == (kind, [])
        width, height = figure.get_size_inches()
        assert 4 <= width <= 17 and 3 <= height <= 13, kind


def test_texts_that_collide_or_leave_the_page_are_seen():
    """The saboteur of the test above."""
    figure = Figure(figsize=(3, 2))
    figure.text(0.5, 0.5, "one")
    assert overlaps(texts_of(figure)) == [] and cut_off(texts_of(figure), figure) == []
    figure.text(0.52, 0.52, "other")
    figure.text(0.95, 0.1, "leaves the page")
    texts = texts_of(figure)
    assert overlaps(texts) == [("one", "other")] and cut_off(texts, figure) == ["leaves the page"]


def test_every_axis_of_values_has_a_name_and_every_bar_a_unit(made):
    drawn = figures(made.make_profile([(STACK, 6)], streams=(TEXT, IMAGE)))
    for kind, figure in drawn.items():
        bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
        assert (kind == "curves") == (not bars)
        for bar in bars:
            assert bar.get_ylabel() in ("angular distance (units of π)", "cosine similarity (no unit)")
    for kind in ("similarity", "spans", "heatmaps"):
        panels = [axes for axes in drawn[kind].axes if axes.images and axes.get_label() != "<colorbar>"]
        assert all(axes.get_xlabel() for axes in panels) and any(axes.get_ylabel() for axes in panels)


def test_the_study_is_drawn_as_published(study_profile):
    drawn = figures(study_profile)
    cells = shown_cells(drawn["heatmaps"])[0:8]
    image, text = study_profile.angular(STACK, IMAGE), study_profile.angular(STACK, TEXT)
    assert np.allclose(cells[0], image) and np.allclose(cells[1], text)
    assert isinstance(drawn["heatmaps"].axes[2].images[0].norm, LogNorm)
    assert cells[4].max() == pytest.approx(0.2050, abs=4e-4) and cells[5].max() == pytest.approx(0.1677, abs=4e-4)
    assert sorted(set(np.flatnonzero(cells[6].mask.all(0)))) == [0, 35] and cells[6].mask.sum() == 20
    assert sorted(set(np.flatnonzero(cells[7].mask.all(0)))) == [0] and cells[7].mask.sum() == 10
    combined = shown_cells(drawn["combined"])[0]
    assert combined.shape == (10, 37) and np.allclose(combined, (text + image[:, :-1]) / 2)
    labels = [label.get_text() for label in drawn["heatmaps"].axes[0].get_yticklabels()]
    assert labels[0] == "0.0-0.1" and labels[-1] == "0.9-1.0" and len(labels) == 10
    assert (
        drawn["heatmaps"].axes[0].get_title().startswith("image")
        and drawn["heatmaps"].axes[0].images[0].origin == "lower"
    )


@pytest.fixture(scope="module")
def study_profile(made):
    def read(name):
        path = Path(__file__).parents[1] / "data" / "sd35-large" / f"angular_{name}.csv"
        return np.array([[float(cell) for cell in row.split(",")[1:]] for row in path.read_text().splitlines()[1:]])

    return made.profile_of_angles({TEXT: read("text"), IMAGE: read("image")}, 38)


def test_bins_without_samples_are_gaps_that_are_named(made):
    figure = drawn_alone("heatmaps", made.make_profile([(STACK, 6)], num_bins=5, empty_bins=(1, 4)))
    assert figure.get_supxlabel() == "mean over 2 samples\nhatched: no samples at 0.2-0.4, 0.8-1.0"
    for cells in shown_cells(figure)[:4]:
        assert cells.mask[[1, 4]].all() and not cells.mask[0].all()
    hatched = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    assert [patch.get_y() + 0.5 for patch in hatched] == [1, 4]


def test_branches_of_guidance_are_lines_of_their_own(made):
    both = made.make_profile([(STACK, 6)], streams=(TEXT, IMAGE), branches=("conditional", "unconditional"))
    lines = drawn_alone("curves", both).axes[0].lines
    assert [line.get_label() for line in lines] == [
        f"{name}, {branch}"
        for name in (f"image ({IMAGE})", f"text ({TEXT})")
        for branch in ("conditional", "unconditional")
    ]
    expected = both.influence(STACK, TEXT, "unconditional")
    assert np.allclose(lines[3].get_ydata(), expected)
    alone = drawn_alone("curves", made.make_profile([(STACK, 6)]))
    assert len(alone.axes[0].lines) == 1 and not alone.legends


def test_curves_are_those_of_the_profile(made):
    profile = made.make_profile([(STACK, 6)], empty_bins=(2,))
    influence, angle, residual = (axes.lines[0].get_ydata() for axes in drawn_alone("curves", profile).axes)
    assert np.allclose(influence, profile.influence(STACK, IMAGE))
    assert np.allclose(angle, np.nanmean(profile.angular(STACK, IMAGE), axis=0))
    assert np.allclose(residual, profile.residual_norm(STACK, IMAGE))


@pytest.mark.parametrize("with_embedding", [True, False])
def test_groups_are_named_beside_the_matrix(made, with_embedding):
    profile = made.make_profile([(STACK, 12)], starts=(3, 9))
    groups = find_groups(profile, STACK, num_groups=3)
    axes = drawn_alone("similarity", profile, SimilarityView(with_embedding=with_embedding), groups).axes[0]
    assert [text.get_text() for text in axes.texts] == ["first 0:3", "middle 3:9", "last 9:12"]
    squares = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    first = int(with_embedding)  # the state after layer 0
    expected = [(first, 3), (first + 3, 6), (first + 9, 3)]
    assert [(square.get_x() + 0.5, square.get_width()) for square in squares] == expected


@pytest.mark.parametrize("kind", ["cosine", "token", "means"])
@pytest.mark.parametrize("with_embedding", [True, False])
def test_similarity_is_of_the_states_that_are_asked_for(made, kind, with_embedding):
    profile = made.make_profile([(STACK, 5)], streams=(TEXT, IMAGE), text_ends_early=True)
    for number, sums in enumerate(profile.streams.values()):
        sums.mean_cosine[...] = np.random.default_rng(number).random(sums.mean_cosine.shape)
        sums.trajectories[...] = 1
    figure = drawn_alone("similarity", profile, SimilarityView(kind, with_embedding))
    first = 0 if with_embedding else 1
    for axes, stream in zip(figure.axes, (IMAGE, TEXT), strict=False):
        expected = profile.similarity(STACK, stream, kind=kind)[first:, first:]
        assert np.array_equal(axes.images[0].get_array(), expected)
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == ["in"] * with_embedding + [str(layer) for layer in range(len(expected) - with_embedding)]
        assert list(axes.get_xticks()) == list(range(len(expected)))


def test_similarity_by_time_has_a_panel_a_bin(made):
    profile = made.make_profile([(STACK, 5)], streams=(TEXT, IMAGE), num_bins=7, empty_bins=(2,))
    figure = drawn_alone("similarity_by_time", profile)
    panels = [axes for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]
    labels = bin_labels(7)
    assert [axes.get_title() for axes in panels] == [
        f"{name} {label}" for name in ("image", "text") for label in labels
    ]
    for number, axes in enumerate(panels):
        stream, time_bin = (IMAGE, TEXT)[number // 7], number % 7
        expected = profile.similarity(STACK, stream, time_bin=time_bin)
        cells = np.ma.filled(axes.images[0].get_array(), np.nan)
        assert np.array_equal(cells, expected, equal_nan=True)
        assert [text.get_text() for text in axes.texts] == ["no samples"] * (time_bin == 2)
    assert len({panel.images[0].norm for panel in panels}) == 1  # colours can be compared
    with pytest.raises(InputError, match="belong to no timestep"):
        draw_similarity_by_time(profile, profile.stacks[0], LIGHT, SimilarityView("means"))


def test_spans_are_read_off_the_angles(made):
    angles = made.make_profile([(STACK, 5)], starts=(2,)).span_angular(STACK, IMAGE)
    cells = span_cells(angles)
    for length, start in itertools.product(range(1, 6), range(5)):
        expected = angles[start, start + length] if start + length <= 5 else np.nan
        assert cells[length - 1, start] == pytest.approx(expected, nan_ok=True)
    assert best_starts(angles).tolist() == [np.nanargmin(row) for row in cells]


def test_files_are_named_by_kind_and_stack(made, tmp_path):
    profile = made.make_profile([(STACK, 2), ("blocks", 1)], num_bins=1)
    with drawing_drafts():
        written = plot_profile(profile, {}, tmp_path / "new" / "plots", file_format="svg")
    assert [path.name for path in written] == [
        f"{kind}_{stack}.svg" for stack in (STACK, "blocks") for kind in KINDS if kind in ALWAYS
    ]
    assert all(b"<svg" in path.read_bytes()[:900] for path in written)
    assert sorted((tmp_path / "new" / "plots").glob("*.*")) == sorted([*written, tmp_path / "new" / "plots" / MARKER])


def test_the_same_profile_gives_the_same_bytes(made):
    profile = made.make_profile([(STACK, 3)])
    for kind in ("png", "svg"):
        one, other = (render(draw_curves(profile, profile.stacks[0], DARK), kind) for _ in range(2))
        assert one == other


def test_what_can_not_be_drawn_is_told(made, tmp_path):
    with pytest.raises(InputError, match=f"nothing was counted in {STACK}/hidden_states"):
        plot_profile(made.make_profile(empty_bins=range(4)), {}, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file; give a folder"):
        plot_profile(made.make_profile([(STACK, 3)]), {}, tmp_path / "file")


def test_ticks_labels_and_scales():
    assert list(tick_positions(4, 10)) == [0, 1, 2, 3]
    assert list(tick_positions(57, 12)) == list(range(0, 57, 5))
    assert bin_labels(10)[3] == "0.3-0.4" and bin_labels(4)[1] == "0.25-0.50" and bin_labels(1) == ["0.0-1.0"]
    assert spread_labels([1, 1.1, 5], 1, 0, 6) == [1, 2, 5]
    assert spread_labels([5, 5.5, 6], 1, 0, 6) == [4, 5, 6]
    assert spread_labels([1, 2, 3], 4, 0, 6) == [0, 3, 6]
    assert isinstance(color_scale(np.array([0.0, 0.1, 1]), "log"), LogNorm)
    assert not isinstance(color_scale(np.zeros(3), "log"), LogNorm)
    assert spans_decades(np.array([1, 1, 1, 9.0])) and not spans_decades(np.array([1, 1, 5.0]))
    assert [variant.scale for variant in heatmap_variants(np.ones((2, 3)))] == ["linear", "log", "linear", "linear"]


def test_of_many_bins_ten_with_samples_are_drawn_by_time(made):
    filled = range(2, 50, 4)
    profile = made.make_profile([(STACK, 3)], num_bins=50, empty_bins=sorted(set(range(50)) - set(filled)))
    bins = bins_to_draw(profile)
    assert len(bins) == 10 and set(bins) <= set(filled) and (bins[0], bins[-1]) == (2, 46)
    assert bins_to_draw(made.make_profile([(STACK, 3)], num_bins=5, empty_bins=(1,))) == [0, 1, 2, 3, 4]
    figure = drawn_alone("similarity_by_time", profile)
    assert not [text for axes in figure.axes for text in axes.texts]


def test_means_of_some_tokens_are_told_not_to_be_there(made):
    profile = made.make_profile([(STACK, 3)], part="conditional:text")
    with pytest.raises(InputError, match="means over trajectories are of all tokens; take a branch as the part"):
        drawn_alone("similarity", profile, SimilarityView("means"))
