"""The blocks of a plan as a standalone SVG: a band a stack, left to right, edited parts marked by colour and sign."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from surgery.anatomy.anatomy import Anatomy
from surgery.plan.paired import ModelPlan, PairedPlan
from surgery.plan.plan import Plan
from surgery.plan.windowed import WindowedPlan, names_of, plans_of
from surgery.report.cells import Box, Cell, ParallelCell, RepeatedCell, SkippedCell, StackCells, cells_of_plan, lanes_of

WIDTH = 1000
MARGIN = 24
BOX = 34  # width of a box; its height is BOX_HEIGHT
BOX_HEIGHT = 26
GAP = 10
NOTE_HEIGHT = 12
MAX_IN_A_COLUMN = 7
TITLE_HEIGHT = 34
LANE_HEIGHT = 20  # of the noise range, in drawings of windows

# Colours of Okabe and Ito, which the colour-blind can tell apart; each kind of edit has a sign as well.
# What is written at each element holds in renderers without style sheets; a style sheet goes before it.
PAINT = {
    "title": 'font-family="sans-serif" font-size="16" font-weight="600" fill="#1a1a1a"',
    "stack": 'font-family="sans-serif" font-size="12" font-weight="600" fill="#1a1a1a"',
    "plain": 'font-family="sans-serif" font-size="12" fill="#1a1a1a"',
    "index": 'font-family="sans-serif" font-size="13" text-anchor="middle" fill="#1a1a1a"',
    "note": 'font-family="sans-serif" font-size="10" text-anchor="middle" fill="#1a1a1a"',
    "gone": 'font-family="sans-serif" font-size="13" text-anchor="middle" fill="#6a6a6a"',
    "gone-note": 'font-family="sans-serif" font-size="10" text-anchor="middle" fill="#6a6a6a"',
    "paper": 'fill="#ffffff"',
    "line": 'stroke="#8a8a8a" stroke-width="1.5" fill="none"',
    "box": 'fill="#efefef" stroke="#8a8a8a" stroke-width="1"',
    "changed": 'fill="#fbe3c0" stroke="#e69f00" stroke-width="2"',
    "skipped": 'fill="#ffffff" stroke="#8a8a8a" stroke-dasharray="4 3"',
    "parallel": 'fill="#dcebf7" stroke="#0072b2" stroke-width="2"',
    "repeated": 'fill="#d8f0e6" stroke="#009e73" stroke-width="2"',
}
STYLE = """
text { font-family: ui-sans-serif, system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  text { fill: #e8e8e8; }
  .paper { fill: #16181d; }
  .line { stroke: #9a9a9a; }
  .box { fill: #2b2e36; stroke: #9a9a9a; }
  .changed { fill: #4a3711; stroke: #e69f00; }
  .skipped { fill: #16181d; stroke: #9a9a9a; }
  .gone, .gone-note { fill: #a8a8a8; }
  .parallel { fill: #12324a; stroke: #56b4e9; }
  .repeated { fill: #0f3a2d; stroke: #20c997; }
}
"""


@dataclass(frozen=True)
class Shape:
    """Something to draw: its size, how far below its top the line enters it, and what draws it at a place."""

    width: float
    height: float
    axis: float
    draw: Callable[[float, float], Iterable[str]]


def draw_svg(plan: ModelPlan, *anatomies: Anatomy, title: str) -> str:
    """The drawing as the text of an SVG file; with windows, each plan below the noise range, where it runs.

    Of a pipeline with two transformers, they are drawn one below the other, with their names before those of stacks.
    Without anatomies the streams of their stacks are not named.
    """
    inner = WIDTH - 2 * MARGIN
    bands: list[Shape] = []
    cells: list[Cell] = []
    parts = plan.by_part if isinstance(plan, PairedPlan) else {"": plan}
    for (part, of_part), anatomy in zip(parts.items(), anatomies or [None] * len(parts), strict=True):
        for each in plans_of(of_part):
            stacks = cells_of_plan(each, anatomy)
            if isinstance(of_part, WindowedPlan):
                bands.append(_time_axis(of_part, each, inner, part))
            bands += [_band(stack, inner, part) for stack in stacks]
            cells += [cell for stack in stacks for cell in stack.cells]
    legend = _legend(cells)
    height = MARGIN + TITLE_HEIGHT + sum(band.height + 2 * GAP for band in bands) + legend.height + MARGIN
    drawn = [_text(MARGIN, MARGIN + 14, title, "title")]
    y = float(MARGIN + TITLE_HEIGHT)
    for band in bands:
        drawn += band.draw(MARGIN, y)
        y += band.height + 2 * GAP
    drawn += legend.draw(MARGIN, y)
    description = "; ".join(plan.text.splitlines())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
        f'height="{height:g}" role="img">\n<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n'
        f"<style>{STYLE}</style>\n"
        f'<rect {_painted("paper")} width="{WIDTH}" height="{height:g}"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _time_axis(plan: WindowedPlan, within: Plan, width: float, part: str) -> Shape:
    """A line of the noise range for each branch and part of steps; where the plan runs, it is filled."""
    lanes = [lane for lane in lanes_of(plan, within) if lane.spans]
    scale = width / 2

    def draw(x: float, y: float) -> Iterable[str]:
        name = f"{part}: " if part else ""
        yield _text(x, y + 12, f"{name}when {names_of(plan.by_plan[within])}", "stack")
        left = x + 58
        for number, lane in enumerate(lanes):
            top = y + 20 + number * LANE_HEIGHT
            yield _text(x, top + 11, "clean 0", "plain")
            yield f'<rect {_painted("box")} x="{left:g}" y="{top:g}" width="{scale:g}" height="14" rx="2"/>'
            for low, high in lane.spans:
                at, long = left + low * scale, (high - low) * scale
                yield f'<rect {_painted("parallel")} x="{at:g}" y="{top:g}" width="{long:g}" height="14" rx="2"/>'
            yield _text(left + scale + 8, top + 11, f"1 noise ({lane.name})" if lane.name else "1 noise", "plain")

    return Shape(width, 20 + LANE_HEIGHT * len(lanes), 0, draw)


def _band(stack: StackCells, width: float, part: str) -> Shape:
    name = f"{part}/{stack.name}" if part else stack.name
    flow = _flow([_shape(cell, width) for cell in stack.cells], width)

    def draw(x: float, y: float) -> Iterable[str]:
        yield _text(x, y + 12, name, "stack")
        streams = f"; streams: {stack.streams}" if stack.streams else ""
        yield _text(x + 8 * len(name) + 16, y + 12, f"{stack.num_blocks} layers{streams}", "plain")
        yield from flow.draw(x, y + 24)

    return Shape(width, flow.height + 24, 0, draw)


def _shape(cell: Cell, width: float) -> Shape:
    match cell:
        case Box():
            return _box(cell)
        case SkippedCell(first, end):
            return _skipped(first, end)
        case ParallelCell():
            return _parallel(cell)
        case RepeatedCell(cells, times):
            inner = _flow([_shape(part, width - 2 * GAP) for part in cells], width - 2 * GAP)
            return _framed(inner, "repeated", f"{times} times in a row")


def _box(box: Box) -> Shape:
    notes = [*(["moved"] if box.moved else []), *(["runs again"] if box.again else []), *box.notes]
    width = max(BOX, *(6 * len(note) for note in notes)) if notes else BOX

    def draw(x: float, y: float) -> Iterable[str]:
        left = x + (width - BOX) / 2
        kind = "changed" if box.is_edited else "box"
        yield f'<rect {_painted(kind)} x="{left:g}" y="{y:g}" width="{BOX}" height="{BOX_HEIGHT}" rx="4"/>'
        yield _text(x + width / 2, y + 17, str(box.index), "index")
        for number, note in enumerate(notes, start=1):
            yield _text(x + width / 2, y + BOX_HEIGHT + number * NOTE_HEIGHT - 1, note, "note")

    return Shape(width, BOX_HEIGHT + NOTE_HEIGHT * len(notes), BOX_HEIGHT / 2, draw)


def _skipped(first: int, end: int) -> Shape:
    label = str(first) if end == first + 1 else f"{first}:{end}"
    width = max(BOX, 8 * len(label) + 12, 40)

    def draw(x: float, y: float) -> Iterable[str]:
        yield f'<rect {_painted("skipped")} x="{x:g}" y="{y:g}" width="{width}" height="{BOX_HEIGHT}" rx="4"/>'
        yield _text(x + width / 2, y + 17, label, "gone")
        yield _text(x + width / 2, y + BOX_HEIGHT + NOTE_HEIGHT - 1, "skipped", "gone-note")

    return Shape(width, BOX_HEIGHT + NOTE_HEIGHT, BOX_HEIGHT / 2, draw)


def _parallel(cell: ParallelCell) -> Shape:
    """The members in columns, within a frame that says how they are combined."""
    shapes = [_box(box) for box in cell.boxes]
    columns = [shapes[start : start + MAX_IN_A_COLUMN] for start in range(0, len(shapes), MAX_IN_A_COLUMN)]
    widths = [max(shape.width for shape in column) for column in columns]
    heights = [sum(shape.height + 4 for shape in column) - 4 for column in columns]

    def draw(x: float, y: float) -> Iterable[str]:
        for column, width in zip(columns, widths, strict=True):
            top = y
            for shape in column:
                yield from shape.draw(x + (width - shape.width) / 2, top)
                top += shape.height + 4
            x += width + 4

    times = f", {cell.times} times" if cell.times > 1 else ""
    how = "mean" if cell.combine == "mean" else "sum of updates"
    inner = Shape(sum(widths) + 4 * (len(widths) - 1), max(heights), 0, draw)
    return _framed(inner, "parallel", f"∥ {how}{times}")


def _framed(inner: Shape, kind: str, label: str) -> Shape:
    width = max(inner.width + 2 * GAP, 7 * len(label) + 2 * GAP)
    height = inner.height + 2 * GAP + 14

    def draw(x: float, y: float) -> Iterable[str]:
        yield f'<rect {_painted(kind)} x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="10"/>'
        yield from inner.draw(x + (width - inner.width) / 2, y + GAP)
        yield _text(x + width / 2, y + height - 7, label, "index")

    return Shape(width, height, height / 2, draw)


def _flow(shapes: Sequence[Shape], width: float) -> Shape:
    """Shapes from left to right on one line, in as many rows as they need."""
    rows: list[list[Shape]] = [[]]
    for shape in shapes:
        taken = sum(other.width + GAP for other in rows[-1])
        if rows[-1] and taken + shape.width > width:
            rows.append([])
        rows[-1].append(shape)
    above = [max((shape.axis for shape in row), default=0) for row in rows]
    below = [max((shape.height - shape.axis for shape in row), default=BOX_HEIGHT) for row in rows]

    def draw(x: float, y: float) -> Iterable[str]:
        axis = y
        for row, over, under in zip(rows, above, below, strict=True):
            axis += over
            yield f'<path {_painted("line")} d="M{x:g} {axis:g}h{_width_of(row):g}"/>'
            left = x
            for shape in row:
                yield from shape.draw(left, axis - shape.axis)
                left += shape.width + GAP
            axis += under + GAP

    height = sum(above) + sum(below) + GAP * (len(rows) - 1)
    return Shape(max(map(_width_of, rows)), height, height / 2, draw)


def _width_of(row: Sequence[Shape]) -> float:
    return sum(shape.width + GAP for shape in row) - GAP if row else BOX


def _legend(cells: Sequence[Cell]) -> Shape:
    """What the colours that occur mean."""
    kinds = list(dict.fromkeys(_kinds(cells)))
    meanings = {
        "box": "as it was",
        "changed": "moved, repeated, scaled, or with replaced components",
        "skipped": "skipped",
        "parallel": "in parallel",
        "repeated": "repeated",
    }
    shown = [kind for kind in meanings if kind in kinds]

    def draw(x: float, y: float) -> Iterable[str]:
        for kind in shown:
            yield f'<rect {_painted(kind)} x="{x:g}" y="{y:g}" width="18" height="14" rx="3"/>'
            yield _text(x + 24, y + 11, meanings[kind], "plain")
            x += 24 + 6.5 * len(meanings[kind]) + 24

    return Shape(WIDTH - 2 * MARGIN, 16, 0, draw)


def _kinds(cells: Sequence[Cell]) -> Iterable[str]:
    for cell in cells:
        match cell:
            case Box():
                yield "changed" if cell.is_edited else "box"
            case SkippedCell():
                yield "skipped"
            case ParallelCell(boxes):
                yield "parallel"
                yield from _kinds(boxes)
            case RepeatedCell(inner):
                yield "repeated"
                yield from _kinds(inner)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text {_painted(kind)} x="{x:g}" y="{y:g}">{escape(text)}</text>'


def _painted(kind: str) -> str:
    """What an element of a kind looks like, in any renderer."""
    return f'class="{kind}" {PAINT[kind]}'
