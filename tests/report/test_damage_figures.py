"""Figures of damage: cells where they belong, no value taken for none, the same axes and colours, texts kept apart."""

import re

import numpy as np
import pytest
from drawn_texts import cut_off, overlaps, texts_of
from evaluations_made import STACK, write_evaluation

from surgery.experiment.damage_agreement import angle_maps, compare_maps
from surgery.experiment.damage_map import read_damage
from surgery.report.damage_figures import draw_damage
from surgery.report.plot_damage import agreement_text, answer_text, damage_text, plot_damage
from surgery.report.themes import DARK, LIGHT

TEXT, IMAGE = "encoder_hidden_states", "hidden_states"
EDITS = ("skip", "attn1 = zero", "attn2 = channel_mean", "ff = zero", "norm1 = input", "norm2 = input")


@pytest.fixture
def drawn(made, tmp_path):
    """A function: layers, bins, edits and streams -> damage, angles, agreements and the figure of all."""

    def make(num_layers, num_bins, edits=EDITS[:1], streams=(IMAGE,), theme=LIGHT):
        rng = np.random.default_rng(num_layers)
        maps = {(STACK, edit): rng.random((num_bins, num_layers)) ** 4 for edit in edits}
        damage = read_damage(write_evaluation(tmp_path, maps, {STACK: num_layers}))
        profile = made.make_profile(
            [(STACK, num_layers)],
            streams=streams or (IMAGE,),
            num_bins=num_bins,
            text_ends_early=True,
            empty_bins=[1] if num_bins > 2 else [],
        )
        angles = angle_maps(damage, profile) if streams else []
        agreements = compare_maps(damage, angles)
        return damage, angles, agreements, draw_damage(damage, STACK, theme, angles, agreements)

    return make


def panels_of(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>" and axes.get_visible()]


@pytest.mark.parametrize(
    ("num_layers", "num_bins", "edits", "streams"),
    [
        (12, 10, EDITS[:4], (IMAGE,)),
        pytest.param(57, 10, EDITS, (TEXT, IMAGE), marks=pytest.mark.slow),
        (2, 1, EDITS[:1], ()),
        pytest.param(28, 100, EDITS[:2], (IMAGE,), marks=pytest.mark.slow),
    ],
)
def test_no_text_lies_on_another_or_is_cut_off(drawn, num_layers, num_bins, edits, streams):
    *_, figure = drawn(num_layers, num_bins, edits, streams, DARK)
    texts = texts_of(figure)
    assert (overlaps(texts), cut_off(texts, figure)) == ([], [])
    width, height = figure.get_size_inches()
    assert 4 <= width <= 17 and 3 <= height <= 15
    assert len(panels_of(figure)) == len(edits) + 2 * len(streams)


def test_maps_and_angles_stand_on_the_same_axes_and_edits_share_their_colours(drawn):
    damage, angles, agreements, figure = drawn(12, 5, EDITS[:2], (TEXT, IMAGE))
    panels = panels_of(figure)
    cells = [panel.images[0].get_array() for panel in panels[:4]]
    expected = [*(one.errors for one in damage.maps), *(one.angles for one in angles)]
    assert all(np.allclose(np.ma.filled(a, np.nan), b, equal_nan=True) for a, b in zip(cells, expected, strict=True))
    assert len({(panel.get_xlim(), panel.get_ylim(), panel.images[0].origin) for panel in panels[:4]}) == 1
    assert panels[0].images[0].norm is panels[1].images[0].norm
    assert panels[4].get_ylim() == panels[0].get_ylim()
    for panel, stream in zip(panels[4:], (TEXT, IMAGE), strict=True):
        lines = [line.get_xdata() for line in panel.lines if line.get_marker() == "o"]
        found = [[one and one.value for one in each.by_bin] for each in agreements if each.stream == stream]
        assert np.array_equal(np.array(lines, float), np.array(found, float), equal_nan=True)


def test_no_damage_is_not_taken_for_no_measurement(tmp_path):
    """On the logarithmic scale that a few large values make, 0 has the least colour, and what is not known is grey."""
    cells = np.full((2, 6), 0.01)
    cells[:, 1], cells[:, 2], cells[0, 3] = 1.0, np.nan, 0.0
    damage = read_damage(write_evaluation(tmp_path, {(STACK, "skip"): cells}, {STACK: 6}))
    figure = draw_damage(damage, STACK, LIGHT)
    image = panels_of(figure)[0].images[0]
    assert image.norm.vmin == 0.01 and not image.norm(image.get_array()).mask[0, 3]
    assert image.get_array().mask.all(0).tolist() == [False, False, True, False, False, False]
    assert figure.get_supxlabel().endswith("mean over 4 prompts; grey: not measured")


def test_every_stack_has_a_file_of_its_own(made, tmp_path):
    lengths = {STACK: 6, "blocks": 6}
    maps = {(stack, "skip"): np.random.default_rng(0).random((2, 6)) for stack in lengths}
    damage = read_damage(write_evaluation(tmp_path, maps, lengths))
    written = plot_damage(damage, tmp_path / "plots", themes=("dark",), file_format="svg")
    assert [path.name for path in written] == [f"damage_{stack}_dark.svg" for stack in lengths]
    assert all(b"<svg" in path.read_bytes()[:900] for path in written)
    beside = compare_maps(damage, angle_maps(damage, made.make_profile([(STACK, 6), ("blocks", 6)], num_bins=2)))
    assert [one.stack for one in beside] == list(lengths)


def test_what_is_drawn_is_said(made, tmp_path):
    """The extremes with their places and intervals; the correlations; and the answer at each time."""
    cells = np.arange(24.0).reshape(2, 12)
    damage = read_damage(write_evaluation(tmp_path, {(STACK, "skip"): cells}, {STACK: 12}))
    assert re.split(" {2,}", damage_text(damage).splitlines()[1]) == [
        *(STACK, "skip", "12", "0+-0.01 layer 0 at 0.0-0.5", "23+-0.01 layer 11 at 0.5-1.0")
    ]
    angles = np.stack([cells[0], cells[1, ::-1]]) / 100
    (found,) = compare_maps(damage, angle_maps(damage, made.profile_of_angles({IMAGE: angles}, 12, STACK)))
    lines = agreement_text([found], 2).splitlines()
    assert lines[1:5] == [
        f"{STACK}, {IMAGE}",
        "  timestep   skip",
        "  0.0-0.5    1.00 (1.00 to 1.00)",
        "  0.5-1.0    -1.00 (-1.00 to -1.00)",
    ]
    for line, whole in zip(lines[5:7], ((found.all_times, "times"), (found.all_cells, "cells")), strict=True):
        expected = f"{whole[0].value:.2f} ({whole[0].low:.2f} to {whole[0].high:.2f})"
        assert re.split(" {2,}", line.strip()) == [f"all {whole[1]}", expected]
    assert lines[7] == f"  skip: {answer_text(found)}"
    assert answer_text(found) == "over all times not shown; at 0.0-0.5 yes, at 0.5-1.0 the reverse"
