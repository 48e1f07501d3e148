"""An axis that a value far from all others does not squeeze: it stands beyond a break, at the end of the axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from surgery.report.themes import Theme

FAR = 0.6  # a value is far where the others would have less than this share of the axis
ROOM, GAP = 0.12, 0.05  # shares of the axis beyond a break, and within it
LEAST = 0.02  # of a value, for the range of values that are all alike
MARGIN = 0.06  # around the others, as a share of their range

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Breaks:
    """The range of most values, and the ends of the axis, beyond it where there is a break."""

    low: float
    high: float
    bottom: float
    top: float

    @property
    def is_broken(self) -> bool:
        """Whether anything lies beyond."""
        return self.bottom < self.low or self.top > self.high

    @property
    def knots(self) -> tuple[Array, Array]:
        """Values, ascending, and the shares of the axis at which they stand."""
        below, above = self.bottom < self.low, self.top > self.high
        values = [*([self.bottom] if below else []), self.low, self.high, *([self.top] if above else [])]
        start, end = (ROOM + GAP if below else 0.0), (1 - ROOM - GAP if above else 1.0)
        places = [*([ROOM / 2] if below else []), start, end, *([1 - ROOM / 2] if above else [])]
        return np.array(values), np.array(places)


def find_breaks(most: ArrayLike, far: ArrayLike = ()) -> Breaks:
    """The axis of most values (which hold one at least), with breaks before those of `far` that would squeeze them."""
    values = np.asarray(most, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    beyond = sorted(np.asarray(far, dtype=np.float64).tolist())
    width = max(high - low, LEAST * abs(high), 1e-12)
    near = [value for value in beyond if width >= FAR * (max(high, value) - min(low, value))]
    low, high = min([low, *near]), max([high, *near])
    pad = max(MARGIN * (high - low), (width - (high - low)) / 2)
    far_below = [value for value in beyond if value < low]
    far_above = [value for value in beyond if value > high]
    low, high = low - pad, high + pad
    return Breaks(low, high, min([low, *far_below]), max([high, *far_above]))


def break_axis(
    axes: Axes, which: Literal["x", "y"], breaks: Breaks, theme: Theme, *, shown: Sequence[float] = (), ticks: int = 5
) -> None:
    """Give an axis of a panel these breaks; ticks stand within the range of most, and at the values `shown`."""
    axis, set_limits = (axes.xaxis, axes.set_xlim) if which == "x" else (axes.yaxis, axes.set_ylim)
    if not breaks.is_broken:
        set_limits(breaks.low, breaks.high)
        axis.set_major_locator(MaxNLocator(ticks))
        return
    values, places = breaks.knots

    def forward(found: ArrayLike) -> Array:
        return _through(np.asarray(found, dtype=np.float64), values, places)

    def inverse(found: ArrayLike) -> Array:
        return _through(np.asarray(found, dtype=np.float64), places, values)

    set_scale = axes.set_xscale if which == "x" else axes.set_yscale
    set_scale("function", functions=(forward, inverse))
    set_limits(float(inverse(0.0)), float(inverse(1.0)))
    within = [tick for tick in MaxNLocator(ticks).tick_values(breaks.low, breaks.high) if _is_within(tick, breaks)]
    beyond = [value for value in shown if not _is_within(value, breaks)]
    axis.set_major_locator(FixedLocator([*within, *beyond]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value, breaks, within)))
    if breaks.bottom < breaks.low:
        _mark(axes, which, ROOM + GAP / 2, theme)
    if breaks.top > breaks.high:
        _mark(axes, which, 1 - ROOM - GAP / 2, theme)


def _tick_text(value: float, breaks: Breaks, within: Sequence[float]) -> str:
    """A tick with as many decimals as the ticks within differ by; beyond the break with three digits."""
    if not _is_within(value, breaks):
        return f"{value:.3g}"
    step = min(np.diff(within), default=1.0)
    decimals = next((n for n in range(12) if np.isclose(step, round(step, n), rtol=1e-6, atol=0)), 12)
    return f"{value:.{decimals}f}"


def _is_within(value: float, breaks: Breaks) -> bool:
    return breaks.low <= value <= breaks.high


def _through(found: Array, xs: Array, ys: Array) -> Array:
    """Piecewise linear through the knots, and on in a straight line beyond the first and the last."""
    slopes = np.diff(ys) / np.diff(xs)
    cell = np.clip(np.searchsorted(xs, found, side="right") - 1, 0, len(slopes) - 1)
    return ys[cell] + slopes[cell] * (found - xs[cell])


def _mark(axes: Axes, which: Literal["x", "y"], place: float, theme: Theme) -> None:
    """Two slanted strokes across both edges of the panel, which are interrupted between them."""
    near, far = place - GAP / 3, place + GAP / 3
    for edge in (0.0, 1.0):
        _stroke(axes, which, (edge, edge), (near, far), {"color": theme.paper, "linewidth": 2.5})
        for at in (near, far):
            _stroke(axes, which, (edge - 0.012, edge + 0.012), (at - 0.012, at + 0.012), {"color": theme.ink})


def _stroke(
    axes: Axes, which: Literal["x", "y"], across: tuple[float, float], along: tuple[float, float], style: dict[str, Any]
) -> None:
    xs, ys = (along, across) if which == "x" else (across, along)
    line = Line2D(xs, ys, **{"linewidth": 0.9, **style}, transform=axes.transAxes, clip_on=False, zorder=5)
    axes.add_artist(line)
