"""The texts of a figure: where they are drawn, which lie on one another, which leave the page."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

TOUCHING = 1.0  # pixels that glyphs' boxes may share: their outlines do not

Texts = list[tuple[str, tuple[float, float, float, float]]]


def texts_of(figure: Figure) -> Texts:
    """All texts that are drawn, with their boxes in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    unseen = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low <= tick.get_loc() <= high:
                unseen |= {id(tick.label1), id(tick.label2)}
    found = []
    for item in figure.findobj(Text):
        if item.get_text().strip() and item.get_visible() and id(item) not in unseen:
            box = Text.get_window_extent(item, canvas.get_renderer())  # without the line that leads to it
            found.append((item.get_text(), (box.x0, box.y0, box.x1, box.y1)))
    return found


def overlaps(texts: Texts) -> list[tuple[str, str]]:
    """Pairs of texts that lie on one another."""
    found = []
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        if min(width, height) > TOUCHING:
            found.append((one, other))
    return found


def cut_off(texts: Texts, figure: Figure) -> list[str]:
    """Texts that leave the page."""
    width, height = figure.bbox.width, figure.bbox.height
    return [text for text, (x0, y0, x1, y1) in texts if x0 < -1 or y0 < -1 or x1 > width + 1 or y1 > height + 1]
