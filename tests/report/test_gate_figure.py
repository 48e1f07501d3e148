"""The figure of gates: its cells are the gates, and a table of anything else is refused."""

import numpy as np
import pytest

from surgery.errors import InputError
from surgery.report.gate_figure import draw_gates, middles_of_bins


def test_cells_are_the_gates_with_time_upwards_and_colours_even_about_a_half():
    gates = np.array([[0.4, 0.5, 0.5], [0.5, 0.5, 0.9]])
    (axes, _) = draw_gates(gates).axes
    (image,) = axes.get_images()
    assert np.array_equal(image.get_array(), gates.T)
    assert image.get_clim() == pytest.approx((0.1, 0.9))
    assert middles_of_bins(4) == [125, 375, 625, 875]


@pytest.mark.parametrize("gates", [np.zeros(3), np.full((2, 3), 1.5), np.full((2, 3), np.nan), np.zeros((0, 3))])
def test_what_is_no_table_of_gates_is_refused(gates):
    with pytest.raises(InputError, match="gates are a table of numbers from 0 to 1, a row a block"):
        draw_gates(gates)
