"""The gates of a DiT, read out by block and timestep -> a figure: a heat map, and what may be read from it."""

from itertools import pairwise

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from surgery.errors import InputError
from surgery.profiles.layer_profile import Array
from surgery.report.panels import (
    LAYER,
    TIMESTEP,
    add_color_bar,
    cells_size,
    draw_cells,
    new_figure,
    set_bin_ticks,
    set_layer_ticks,
    style_axes,
)
from surgery.report.themes import THEMES, Theme

HALF = 0.5  # of both adapters alike
NOTE = "low is a name: to swap the two adapters\nand turn g over changes nothing"


def middles_of_bins(num_bins: int, num_train_timesteps: int = 1000) -> list[float]:
    """The timesteps in the middle of equal parts of the noise range: those that `draw_gates` takes gates at."""
    edges = np.linspace(0, num_train_timesteps, num_bins + 1).tolist()
    return [(low + high) / 2 for low, high in pairwise(edges)]


def draw_gates(gates: Array, theme: Theme = THEMES["light"]) -> Figure:
    """A heat map of gates (blocks, bins) of `surgery.dit.read_gates` at `middles_of_bins`, in colours even about half.

    Raises:
        InputError: they are no such table of numbers from 0 to 1.
    """
    gates = np.asarray(gates, dtype=np.float64)
    if gates.ndim != 2 or not gates.size or not ((gates >= 0) & (gates <= 1)).all():
        raise InputError(
            "gates are a table of numbers from 0 to 1, a row a block and a column a part of the noise range"
        )
    num_blocks, num_bins = gates.shape
    size = cells_size(num_blocks, num_bins)
    figure = new_figure(size.width + 1.8, size.height + 1.3, theme, "Share of the low adapter, by block and time", NOTE)
    axes = figure.subplots()
    reach = max(float(np.abs(gates - HALF).max()), 1e-3)
    image = draw_cells(axes, gates.T, Normalize(HALF - reach, HALF + reach), theme)
    style_axes(axes, theme, x=LAYER, y=TIMESTEP)
    set_layer_ticks(axes, num_blocks, size.width)
    set_bin_ticks(axes, num_bins, size.height)
    add_color_bar(figure, image, axes, theme, "mean of g over channels")
    return figure
