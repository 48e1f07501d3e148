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
ROOM, GAP = 0.1, 0.05  # shares of the axis for each far value, and for a break
LABEL = 0.26  # share of an axis that a label may take, where labels stand beside one another
LEAST = 0.02  # of a value, for the range of values that are all alike
MARGIN = 0.06  # around the others, as a share of their range

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Breaks:
    """The range of most values, and the far ones below and above it, ascending, each in a place of its own."""

    low: float
    high: float
    below: tuple[float, ...] = ()
    above: tuple[float, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether anything lies beyond."""
        return bool(self.below or self.above)

    @property
    def start(self) -> float:
        """The share of the axis at which the range of most begins."""
        return ROOM * len(self.below) + GAP if self.below else 0.0

    @property
    def end(self) -> float:
        """The share at which it ends."""
        return 1 - (ROOM * len(self.above) + GAP if self.above else 0.0)

    @property
    def knots(self) -> tuple[Array, Array]:
        """Values, ascending, and the shares of the axis at which they stand."""
        values = [*self.below, self.low, self.high, *self.above]
        places = [ROOM * (number + 0.5) for number in range(len(self.below))]
        places += [self.start, self.end]
        places += [self.end + GAP + ROOM * (number + 0.5) for number in range(len(self.above))]
        return np.array(values), np.array(places)


def find_breaks(most: ArrayLike, far: ArrayLike = ()) -> Breaks:
    """The axis of most values (which hold one at least), with breaks before those of `far` that would squeeze them."""
    values = np.asarray(most, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    others = sorted(set(np.asarray(far, dtype=np.float64).tolist()))
    width = max(high - low, LEAST * abs(high), 1e-12)
    near = [value for value in others if width >= FAR * (max(high, value) - min(low, value))]
    low, high = min([low, *near]), max([high, *near])
    pad = max(MARGIN * (high - low), (width - (high - low)) / 2)
    low, high = low - pad, high + pad
    return Breaks(low, high, tuple(x for x in others if x < low), tuple(x for x in others if x > high))


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
    if which == "x":  # labels beside one another need more room than above one another
        within = [tick for tick in within if all(abs(forward(tick) - forward(far)) > LABEL for far in beyond)]
    axis.set_major_locator(FixedLocator([*within, *beyond]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value, breaks, within)))
    if breaks.below:
        _mark(axes, which, breaks.start - GAP / 2, theme)
    if breaks.above:
        _mark(axes, which, breaks.end + GAP / 2, theme)


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
