"""Variants -> the form in which they are drawn: curves along a number, a map of two, or a list.

The form follows from the variables of a sweep. Where variants edit a single layer each, in the same ways, the layer is
the number, whatever the variable is called, and the edits (`skip`, `attn1 = zero`) are the curves, also where they are
of several specs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from surgery.experiment.layer_edit import LayerEdit, find_layer_edit
from surgery.plan.paired import plans_of_model
from surgery.report.evaluated import MeasuredRow, Value

MIN_POINTS = 2  # of a curve


@dataclass(frozen=True)
class Curve:
    """Variants along one number, in its order."""

    label: str
    points: tuple[tuple[float, MeasuredRow], ...]


@dataclass(frozen=True)
class CurveSet:
    """Curves on one axis, `axis`; of layers `num_layers` are those of the stack, 0 of other numbers."""

    axis: str
    curves: tuple[Curve, ...]
    num_layers: int = 0

    @property
    def rows(self) -> list[MeasuredRow]:
        """All variants."""
        return [row for curve in self.curves for _, row in curve.points]

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the axis."""
        if self.num_layers:
            return 0, self.num_layers - 1
        places = [place for curve in self.curves for place, _ in curve.points]
        return min(places), max(places)


@dataclass(frozen=True)
class PairMap:
    """Variants by two numbers, x before y, and what they have in common beside these (`label`)."""

    label: str
    x: str
    y: str
    cells: Mapping[tuple[float, float], MeasuredRow]

    @property
    def rows(self) -> list[MeasuredRow]:
        """All variants."""
        return list(self.cells.values())


@dataclass(frozen=True)
class RowList:
    """Variants without an order of their own."""

    rows: list[MeasuredRow]


Form = CurveSet | PairMap | RowList


def forms_of(variants: Sequence[MeasuredRow]) -> list[Form]:
    """The forms of all variants, each variant in one of them: curves first, the list last."""
    edits: dict[tuple[str, str], dict[float, MeasuredRow]] = {}
    curves: dict[str, list[Curve]] = {}
    maps: list[Form] = []
    rest: list[MeasuredRow] = []
    for rows in _sweeps_of(variants):
        names = _numbers_of(rows)
        found = _edits_of(rows)
        if len(names) == 2 and _is_map(rows, names):
            maps += _maps_of(rows, names)
        elif found is not None and not _takes_places(edits, found):
            for edit, row in found:
                edits.setdefault((edit.stack, edit.what), {})[edit.layer] = row
        elif len(names) == 1:
            curves.setdefault(names[0], []).extend(_curves_of(rows, names[0]))
        else:
            rest += rows
    for key in [key for key, points in edits.items() if len(points) < MIN_POINTS]:
        rest += edits.pop(key).values()
    forms: list[Form] = [
        *_layer_curves(edits),
        *(CurveSet(axis, tuple(found)) for axis, found in curves.items()),
        *maps,
    ]
    order = {row.name: number for number, row in enumerate(variants)}
    return [*forms, *([RowList(sorted(rest, key=lambda row: order[row.name]))] if rest else [])]


def _sweeps_of(variants: Sequence[MeasuredRow]) -> Iterator[list[MeasuredRow]]:
    """The variants of each sweep; those of specs without variables are one by one."""
    found: dict[tuple[str, ...], list[MeasuredRow]] = {}
    for row in variants:
        key = (row.stem, *row.point) if row.point else ("", row.name)
        found.setdefault(key, []).append(row)
    yield from found.values()


def _numbers_of(rows: Sequence[MeasuredRow]) -> list[str]:
    """The variables that are numbers, and not the same in all rows."""
    return [
        name
        for name in rows[0].point
        if all(_is_number(row.point[name]) for row in rows) and len({row.point[name] for row in rows}) > 1
    ]


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _edits_of(rows: Sequence[MeasuredRow]) -> list[tuple[LayerEdit, MeasuredRow]] | None:
    """The single layer that each row edits, and how; None where a row does anything else."""
    found = [(None if row.plan is None else find_layer_edit(row.plan), row) for row in rows]
    return None if any(edit is None for edit, _ in found) else [(edit, row) for edit, row in found if edit is not None]


def _takes_places(
    edits: Mapping[tuple[str, str], Mapping[float, MeasuredRow]], found: Sequence[tuple[LayerEdit, MeasuredRow]]
) -> bool:
    """Whether two rows make one edit to one layer: one of them must stand elsewhere."""
    places = [(edit.stack, edit.what, edit.layer) for edit, _ in found]
    taken = any(layer in edits.get((stack, what), {}) for stack, what, layer in places)
    return taken or len(set(places)) < len(places)


def _layer_curves(edits: Mapping[tuple[str, str], Mapping[float, MeasuredRow]]) -> Iterator[CurveSet]:
    for stack in dict.fromkeys(stack for stack, _ in edits):
        own = {what: points for (of, what), points in edits.items() if of == stack}
        curves = tuple(Curve(what, tuple(sorted(points.items(), key=_place))) for what, points in own.items())
        yield CurveSet(f"layer of {stack}", curves, _num_blocks(curves[0].points[0][1], stack))


def _num_blocks(row: MeasuredRow, stack: str) -> int:
    assert row.plan is not None, "an edit is of a plan"
    schedules = plans_of_model(row.plan)[0].schedules
    return next((schedule.num_blocks for schedule in schedules if schedule.stack == stack), 0)


def _place(point: tuple[float, MeasuredRow]) -> float:
    return point[0]


def _curves_of(rows: Sequence[MeasuredRow], axis: str) -> Iterator[Curve]:
    """A curve for each combination of the other variables, or several where values come twice."""
    for label, found in _by_others(rows, (axis,)).items():
        yield Curve(label, tuple(sorted(((float(row.point[axis]), row) for row in found), key=_place)))


def _is_map(rows: Sequence[MeasuredRow], names: Sequence[str]) -> bool:
    """Whether no two rows share a cell."""
    return all(
        len({tuple(row.point[name] for name in names) for row in found}) == len(found)
        for found in _by_others(rows, names).values()
    )


def _maps_of(rows: Sequence[MeasuredRow], names: Sequence[str]) -> Iterator[PairMap]:
    x, y = names
    for label, found in _by_others(rows, names).items():
        yield PairMap(label, x, y, {(float(row.point[x]), float(row.point[y])): row for row in found})


def _by_others(rows: Sequence[MeasuredRow], axes: Sequence[str]) -> dict[str, list[MeasuredRow]]:
    """The rows by what they have beside some variables: `replace_each component=attn1`."""
    found: dict[str, list[MeasuredRow]] = {}
    for row in rows:
        others = [f"{name}={value}" for name, value in row.point.items() if name not in axes]
        found.setdefault(" ".join([row.stem, *others]), []).append(row)
    return found
