"""An axis is broken before what would squeeze it, and nowhere else; values stay where they belong."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from surgery.report.broken_axis import FAR, break_axis, find_breaks
from surgery.report.themes import LIGHT


def shown_at(values, far, which="y"):
    """Where values stand on the axis, as shares of it, and its ticks."""
    figure = Figure()
    axes = figure.subplots()
    breaks = find_breaks(values, far)
    break_axis(axes, which, breaks, LIGHT, shown=far)
    points = [(0, value) if which == "y" else (value, 0) for value in [*values, *far]]
    shares = axes.transAxes.inverted().transform(axes.transData.transform(points))[:, 1 if which == "y" else 0]
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.get_major_formatter().set_locs(axis.get_major_locator()())
    return breaks, shares, [axis.get_major_formatter()(tick) for tick in axis.get_major_locator()()]


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize("far", [[-50.0], [60.0], [-50.0, 60.0], [-0.5, -50.0]], ids=["below", "above", "both", "two"])
def test_what_is_far_stands_beyond_a_break_and_leaves_the_others_most_of_the_axis(far, which):
    values = [1.0, 2.0, 3.0]
    breaks, shares, ticks = shown_at(values, far, which)
    assert breaks.is_broken
    assert shares[2] - shares[0] >= FAR
    assert list(np.argsort(shares)) == list(np.argsort([*values, *far])), "the order is that of the values"
    assert shares[1] == pytest.approx((shares[0] + shares[2]) / 2), "and linear among them"
    assert {f"{value:g}" for value in far} <= set(ticks) and min(shares) > 0 and max(shares) < 1


def test_what_is_near_makes_the_axis_longer_and_breaks_nothing():
    breaks, shares, _ = shown_at([1.0, 2.0, 3.0], [3.8, 0.9])
    assert not breaks.is_broken and min(shares) > 0 and max(shares) < 1


def test_values_that_are_all_alike_have_an_axis_whose_ticks_differ():
    for far in ([], [0.75]):
        _, _, ticks = shown_at([1.0, 1.0], far)
        assert len(set(ticks)) == len(ticks) > 2
