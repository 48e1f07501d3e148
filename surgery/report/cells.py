"""Plan x Anatomy -> what a drawing of its blocks shows, in order: the one layout that text and SVG draw.

A run is layers as they are; whatever was edited stands alone and is marked. Layers that never run are shown where they
were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from surgery.anatomy.anatomy import Anatomy
from surgery.plan.atoms import WHOLE_RANGE
from surgery.plan.plan import Plan
from surgery.plan.schedule import Group, Item, Layer, Repetition, Schedule, count_executions
from surgery.plan.windowed import WindowedPlan
from surgery.spec.operations import Combine


@dataclass(frozen=True)
class Box:
    """One execution of a layer.

    `moved`: among the layers that run once, it is not where it was; `again`: it stands elsewhere in the schedule too;
    `notes`: its scale and what its components are replaced with, as `x0.5` and `attn2 = zero`.
    """

    index: int
    moved: bool = False
    again: bool = False
    notes: tuple[str, ...] = ()

    @property
    def is_edited(self) -> bool:
        """Whether it differs from the layer of the unedited model."""
        return self.moved or self.again or bool(self.notes)


@dataclass(frozen=True)
class SkippedCell:
    """Layers `first` to `end` (half open), which never run."""

    first: int
    end: int


@dataclass(frozen=True)
class ParallelCell:
    """Boxes on one input, outputs combined; `times` rounds."""

    boxes: tuple[Box, ...]
    combine: Combine
    times: int


@dataclass(frozen=True)
class RepeatedCell:
    """Cells that run `times` times in a row."""

    cells: tuple["Cell", ...]
    times: int


Cell = Box | SkippedCell | ParallelCell | RepeatedCell


@dataclass(frozen=True)
class StackCells:
    """One stack: its name, how many blocks it had, its streams ("unknown until run" where they are), its cells.

    Where there is no anatomy to say so, streams are empty.
    """

    name: str
    num_blocks: int
    streams: str
    cells: tuple[Cell, ...]


def cells_of_plan(plan: Plan, anatomy: Anatomy | None) -> tuple[StackCells, ...]:
    """The stacks of a plan in the order in which they run."""
    found = []
    for schedule in plan.schedules:
        streams = "" if anatomy is None else _streams_text(anatomy, schedule.stack)
        found.append(StackCells(schedule.stack, schedule.num_blocks, streams, _Layouter(plan, schedule).cells()))
    return tuple(found)


def _streams_text(anatomy: Anatomy, stack: str) -> str:
    streams = anatomy.stack(stack).streams
    return "unknown until run" if streams is None else ", ".join(streams)


@dataclass(frozen=True)
class Lane:
    """Where a plan runs, of one branch and part of the steps: spans of the noise range. The name says what it is of."""

    name: str
    spans: tuple[tuple[float, float], ...]


def lanes_of(plan: WindowedPlan, within: Plan) -> tuple[Lane, ...]:
    """The lanes of all branches and parts of steps, also those in which `within` never runs."""
    spans: dict[str, tuple[tuple[float, float], ...]] = {}
    for atom, of_atom in plan.atoms:
        name = replace(atom, timesteps=WHOLE_RANGE).text
        spans[name] = (*spans.get(name, ()), *([atom.timesteps] if of_atom == within else []))
    return tuple(Lane(name, found) for name, found in spans.items())


class _Layouter:
    """One pass over one schedule."""

    def __init__(self, plan: Plan, schedule: Schedule) -> None:
        self.schedule = schedule
        order = list(_order(schedule.items))
        self.again = {index for index in order if order.count(index) > 1}
        once = [index for index in order if index not in self.again]
        self.moved = {actual for actual, expected in zip(once, sorted(once), strict=True) if actual != expected}
        self.notes: dict[int, tuple[str, ...]] = {}
        for replaced in plan.replacements:
            if replaced.stack == schedule.stack:
                self.notes[replaced.index] = (
                    *self.notes.get(replaced.index, ()),
                    f"{replaced.component} = {replaced.kind}",
                )

    def cells(self) -> tuple[Cell, ...]:
        """All cells, the skipped ones before the first layer that came after them."""
        found: list[Cell] = []
        gone = list(self.schedule.removed)
        for item in self.schedule.items:
            first = min(count_executions((item,)))
            before = [index for index in gone if index < first]
            gone = gone[len(before) :]
            found += _skipped(before)
            found.append(self.cell(item))
        return (*found, *_skipped(gone))

    def cell(self, item: Item) -> Cell:
        match item:
            case Layer():
                return self.box(item)
            case Group(layers, combine, loops):
                return ParallelCell(tuple(self.box(layer) for layer in layers), combine, loops)
            case Repetition(inner, times):
                return RepeatedCell(tuple(self.cell(part) for part in inner), times)
            case _:
                assert_never(item)

    def box(self, layer: Layer) -> Box:
        scale = () if layer.scale == 1.0 else (f"x{layer.scale:g}",)
        notes = (*scale, *self.notes.get(layer.index, ()))
        return Box(layer.index, layer.index in self.moved, layer.index in self.again, notes)


def _order(items: Sequence[Item]) -> Iterator[int]:
    """The layers as they are written; within a group, whose order means nothing, ascending."""
    for item in items:
        match item:
            case Layer(index):
                yield index
            case Group(layers):
                yield from sorted(layer.index for layer in layers)
            case Repetition(inner):
                yield from _order(inner)
            case _:
                assert_never(item)


def _skipped(indices: Sequence[int]) -> Iterator[SkippedCell]:
    run: list[int] = []
    for index in indices:
        if run and index != run[-1] + 1:
            yield SkippedCell(run[0], run[-1] + 1)
            run = []
        run.append(index)
    if run:
        yield SkippedCell(run[0], run[-1] + 1)


def iter_boxes(cells: Sequence[Cell]) -> Iterator[Box]:
    """All boxes in the order of the drawing, those of a loop once."""
    for cell in cells:
        match cell:
            case Box():
                yield cell
            case ParallelCell(boxes):
                yield from boxes
            case RepeatedCell(inner):
                yield from iter_boxes(inner)
            case SkippedCell():
                pass
