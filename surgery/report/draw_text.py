"""The blocks of a plan as text: a column a stack, from top to bottom, edited parts marked in the margin."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from surgery.anatomy.anatomy import Anatomy
from surgery.plan.plan import Plan
from surgery.plan.windowed import WHEN, AnyPlan, WindowedPlan, names_of, plans_of
from surgery.report.cells import (
    Box,
    Cell,
    ParallelCell,
    RepeatedCell,
    SkippedCell,
    StackCells,
    cells_of_plan,
    iter_boxes,
    lanes_of,
)

MARGIN = 4  # columns for the mark
MAX_IN_A_ROW = 16  # members of a group that are drawn side by side
WIDTH = 80
AXIS = 50  # columns of the noise range
LEGEND = {"-": "skipped", "*": "changed", "=": "in parallel", "x": "repeated"}


def draw_text(plan: AnyPlan, anatomy: Anatomy) -> str:
    """The drawing, without a line end at its end; at most about 100 columns wide.

    With windows, each plan is drawn below the axis of time, on which the atoms are marked in which it runs.
    """
    parts: list[str] = []
    marks: set[str] = set()
    for each in plans_of(plan):
        stacks = [list(draw_stack(stack)) for stack in cells_of_plan(each, anatomy)]
        marks |= {line[:MARGIN].strip() for lines in stacks for line in lines[1:]} & set(LEGEND)
        if isinstance(plan, WindowedPlan):
            parts.append("\n".join(draw_atoms(plan, each)))
        parts += ["\n".join(lines) for lines in stacks]
    legend = ", ".join(f"{mark} {meaning}" for mark, meaning in LEGEND.items() if mark in marks)
    return "\n\n".join([*parts, legend] if legend else parts)


def draw_atoms(plan: WindowedPlan, within: Plan) -> Iterator[str]:
    """Where one of the plans runs: its atoms by name, and the noise range for each branch and part of steps."""
    yield f"{WHEN}{names_of(plan.by_plan[within])}"
    for lane in (lane for lane in lanes_of(plan, within) if lane.spans):
        line = ["·"] * AXIS
        for low, high in lane.spans:
            first, end = round(low * AXIS), round(high * AXIS)
            line[first : max(end, first + 1)] = "█" * (max(end, first + 1) - first)
        yield f"  clean 0 {''.join(line)} 1 noise  {lane.name}".rstrip()


def draw_stack(stack: StackCells) -> Iterator[str]:
    """The lines of one stack."""
    yield f"{stack.name}  {stack.num_blocks} layers; streams: {stack.streams}"
    for mark, line in _draw_cells(stack.cells):
        yield f"{mark:^{MARGIN}}{line}".rstrip()
    yield f"{'':{MARGIN}}▼"


Line = tuple[str, str]


def _draw_cells(cells: Sequence[Cell]) -> Iterator[Line]:
    position = 0
    while position < len(cells):
        cell = cells[position]
        run = _run_length(cells, position)
        match cell:
            case Box() if run:
                yield "", f"│  {_range_text(cell.index, cell.index + run)}"
                position += run
                continue
            case Box(moved=True, again=False, notes=()):
                moved = list(itertools.takewhile(_is_only_moved, cells[position:]))
                names = [str(box.index) for box in moved if isinstance(box, Box)]
                for line in textwrap.wrap(" ".join(names) + "  moved", WIDTH):
                    yield "*", f"│  {line}"
                position += len(moved)
                continue
            case Box():
                yield "*", f"│  {cell.index:<7}{_describe(cell)}"
            case SkippedCell(first, end):
                yield "-", f"┊  {_range_text(first, end):<7}skipped"
            case ParallelCell():
                yield from _draw_parallel(cell)
            case RepeatedCell():
                yield from _draw_repeated(cell)
        position += 1


def _is_only_moved(cell: Cell) -> bool:
    return isinstance(cell, Box) and cell.moved and not cell.again and not cell.notes


def _run_length(cells: Sequence[Cell], start: int) -> int:
    """How many unedited boxes of ascending layers begin here."""
    length = 0
    first = cells[start]
    while isinstance(first, Box) and start + length < len(cells):
        cell = cells[start + length]
        if not isinstance(cell, Box) or cell.is_edited or cell.index != first.index + length:
            break
        length += 1
    return length


def _describe(box: Box) -> str:
    facts = [*(["moved"] if box.moved else []), *(["runs again"] if box.again else []), *box.notes]
    return ", ".join(facts)


def _draw_parallel(cell: ParallelCell) -> Iterator[Line]:
    """Branches side by side; of a large group the first and the last ones."""
    how = "mean of the outputs" if cell.combine == "mean" else "sum of the updates"
    times = f", {cell.times} times" if cell.times > 1 else ""
    names = [str(box.index) + ("*" if box.is_edited else "") for box in cell.boxes]
    if len(names) > MAX_IN_A_ROW:
        half = MAX_IN_A_ROW // 2
        names = [*names[:half], "...", *names[-half:]]
    widths = [len(name) for name in names]
    yield "", "├" + _rule(widths, "┬", "┐")
    yield "=", "  ".join(names) + f"   {len(cell.boxes)} in parallel, {how}{times}"
    yield "", "├" + _rule(widths, "┴", "┘")
    for box in cell.boxes:
        if box.notes:
            yield "*", f"│  {box.index:<7}{', '.join(box.notes)}"


def _rule(widths: Sequence[int], joint: str, end: str) -> str:
    """A line over names of these widths, two columns apart, with a joint at the first letter of each."""
    inner = "".join("─" * (width + 1) + joint for width in widths[:-1])
    return inner[:-1] + end if inner else ""


def _draw_repeated(cell: RepeatedCell) -> Iterator[Line]:
    lines = list(_draw_cells(cell.cells))
    if len(lines) == 1 and (len(cell.cells) == 1 or not lines[0][0]):
        boxes = list(iter_boxes(cell.cells))
        facts = [f"{cell.times} times in a row", *(_describe(box) for box in boxes if box.is_edited)]
        yield "x", f"│  {_range_text(boxes[0].index, boxes[-1].index + 1):<7}{', '.join(facts)}"
        return
    yield "x", f"├─╮ {cell.times} times in a row"
    for mark, line in lines:
        yield mark or "x", f"│ {line}"
    yield "", "├─╯"


def _range_text(first: int, end: int) -> str:
    return str(first) if end == first + 1 else f"{first}:{end}"
