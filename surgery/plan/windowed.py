"""The plan of a spec with windows: one plan for each atom. Frozen data, like a plan itself.

Its canonical text is that of a plan, once for each atom or several that are alike, below a line that names them:

    model PixArtTransformer2DModel
    when timesteps 0:0.6
    transformer_blocks[12]: 0:12
    when timesteps 0.6:1, branch conditional | timesteps 0.6:1, branch unconditional
    transformer_blocks[12]: 0:3 4:12
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from surgery.plan.atoms import ALL_STEPS, WHOLE_RANGE, Atom, Grid, atom_from_text, cut_by_atoms
from surgery.plan.plan import Plan, plan_from_json, plan_from_text
from surgery.spec.operations import BRANCHES

WHEN, ALIKE = "when ", " | "
OF_AN_ATOM = ("schedules", "replacements")  # in JSON


@dataclass(frozen=True)
class WindowedPlan:
    """The atoms of a grid and the plan within each; two neighbours along an axis differ somewhere.

    `windowed_plan` makes the one that says the same in the fewest atoms.
    """

    class_name: str
    atoms: tuple[tuple[Atom, Plan], ...]

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The different plans, in the order of their first atoms."""
        return tuple(self.by_plan)

    @property
    def by_plan(self) -> Mapping[Plan, tuple[Atom, ...]]:
        """The atoms of each plan."""
        found: dict[Plan, tuple[Atom, ...]] = {}
        for atom, plan in self.atoms:
            found[plan] = (*found.get(plan, ()), atom)
        return found

    @property
    def is_identity(self) -> bool:
        """Whether the model is left as it is in every atom: never, since atoms differ."""
        return False

    @property
    def goes_by_timesteps(self) -> bool:
        """Whether it hangs on the timestep what runs."""
        return any(atom.timesteps != WHOLE_RANGE for atom, _ in self.atoms)

    @property
    def goes_by_steps(self) -> bool:
        """Whether it hangs on the number of the sampler's step what runs."""
        return any(atom.steps != ALL_STEPS for atom, _ in self.atoms)

    @property
    def goes_by_branches(self) -> bool:
        """Whether it hangs on the branch of guidance what runs."""
        return any(atom.branch is not None for atom, _ in self.atoms)

    @property
    def num_steps(self) -> int:
        """The fewest steps of a sampler in which each of its windows of steps ends or begins."""
        return max(end or first for atom, _ in self.atoms for first, end in (atom.steps,))

    def plan_at(self, share: float, step: int, branch: str) -> Plan:
        """What runs at a share of the noise range, in a step, for a branch."""
        return next(plan for atom, plan in self.atoms if atom.holds(share, step, branch))

    @property
    def text(self) -> str:
        """The canonical text; `any_plan_from_text` reads it back."""
        parts = [f"model {self.class_name}\n"]
        for plan, atoms in self.by_plan.items():
            parts.append(f"{WHEN}{ALIKE.join(atom.text for atom in atoms)}\n")
            parts.append(plan.text.partition("\n")[2])
        return "".join(parts)

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`; `any_plan_from_json` reads it back."""
        windows = []
        for plan, atoms in self.by_plan.items():
            of_plan = plan.to_json()
            kept = {name: of_plan[name] for name in OF_AN_ATOM}
            windows.append({"when": [atom.text for atom in atoms], **kept})
        return {"class": self.class_name, "hash": self.hash, "windows": windows}


AnyPlan = Plan | WindowedPlan


def names_of(atoms: Iterable[Atom]) -> str:
    """`timesteps 0:0.2 | timesteps 0.8:1`, to be read: what atoms cover, where they touch as one window."""
    windows = list(atoms)
    for axis in ("branch", "steps", "timesteps"):
        windows = _join_along(windows, axis)
    return ALIKE.join(window.text for window in sorted(windows, key=_place_of))


def _join_along(windows: list[Atom], axis: str) -> list[Atom]:
    """Windows that differ along one axis only, joined where they touch there."""
    along: dict[Atom, list[Any]] = {}
    for window in windows:
        along.setdefault(_at(window, axis, None), []).append(getattr(window, axis))
    joined: list[Atom] = []
    for elsewhere, cells in along.items():
        parts = _join_spans(cells) if axis != "branch" else [None] if len(cells) == len(BRANCHES) else cells
        joined += [_at(elsewhere, axis, part) for part in parts]
    return joined


def plans_of(plan: AnyPlan) -> tuple[Plan, ...]:
    """The plans of all atoms, each once."""
    return plan.plans if isinstance(plan, WindowedPlan) else (plan,)


def uses_means(plan: AnyPlan) -> bool:
    """Whether a component is replaced with calibrated means anywhere."""
    return any(item.kind == "mean" for each in plans_of(plan) for item in each.replacements)


def windowed_plan(grid: Grid, plan_within: Callable[[Atom], Plan]) -> AnyPlan:
    """The plan of a grid of atoms: without windows where all are alike, otherwise without edges that part nothing."""
    plans = {atom: plan_within(atom) for atom in grid.atoms()}
    for axis, join in (("timesteps", _join_span), ("steps", _join_span), ("branch", _join_branches)):
        plans = _merge_neighbours(plans, axis, join)
    found = tuple(sorted(plans.items(), key=lambda item: _place_of(item[0])))
    return found[0][1] if len(found) == 1 else WindowedPlan(found[0][1].class_name, found)


def _merge_neighbours(plans: Mapping[Atom, Plan], axis: str, join: Callable[[list[Any]], Any]) -> dict[Atom, Plan]:
    """Neighbouring cells of one axis, with the same plans along all others, as one."""
    slices: dict[Any, dict[Atom, Plan]] = {}
    for atom, plan in plans.items():
        elsewhere = _at(atom, axis, None)
        slices.setdefault(getattr(atom, axis), {})[elsewhere] = plan
    merged: dict[Atom, Plan] = {}
    for _, run in itertools.groupby(slices, key=lambda cell: tuple(slices[cell].items())):
        cells = list(run)
        joined = join(cells)
        merged |= {_at(atom, axis, joined): plan for atom, plan in slices[cells[0]].items()}
    return merged


def _at(atom: Atom, axis: str, cell: Any) -> Atom:
    """The atom with another cell of one axis."""
    changes: dict[str, Any] = {axis: cell}
    return replace(atom, **changes)


def _join_span(cells: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    return (cells[0][0], cells[-1][1])


def _join_branches(cells: list[str | None]) -> str | None:
    return cells[0] if len(cells) == 1 else None


def _place_of(atom: Atom) -> tuple[float, int, int]:
    return (atom.timesteps[0], atom.steps[0], 0 if atom.branch is None else BRANCHES.index(atom.branch))


def _join_spans(spans: Iterable[tuple[Any, Any]]) -> list[Any]:
    parts: list[tuple[Any, Any]] = []
    for first, end in sorted(spans):
        touches = bool(parts) and parts[-1][1] == first
        parts = [*parts[:-1], (parts[-1][0], end)] if touches else [*parts, (first, end)]
    return parts


def compare_atoms(first: AnyPlan, second: AnyPlan) -> dict[tuple[Plan, Plan], tuple[Atom, ...]]:
    """Where one plan runs together with one of another spec: the atoms of each such pair."""
    sides = [dict(plan.atoms) if isinstance(plan, WindowedPlan) else {Atom(): plan} for plan in (first, second)]
    grid = cut_by_atoms([atom for side in sides for atom in side])
    found: dict[tuple[Plan, Plan], tuple[Atom, ...]] = {}
    for cell in grid.atoms():
        one, other = (next(plan for atom, plan in side.items() if atom.holds_all(cell)) for side in sides)
        found[one, other] = (*found.get((one, other), ()), cell)
    return found


def any_plan_from_text(text: str) -> AnyPlan:
    """The plan of a canonical text, with windows or without.

    Raises:
        ValueError: a line is malformed.
    """
    head, *sections = text.split(f"\n{WHEN}")
    if not sections:
        return plan_from_text(text)
    atoms: dict[Atom, Plan] = {}
    for section in sections:
        names, _, lines = section.partition("\n")
        plan = plan_from_text(f"{head}\n{lines}")
        atoms |= {atom_from_text(name): plan for name in names.split(ALIKE)}
    return _of_atoms(atoms)


def any_plan_from_json(data: dict[str, Any]) -> AnyPlan:
    """The plan that `to_json` wrote, with windows or without.

    Raises:
        ValueError: a text is malformed, or the hash is not that of the plan.
    """
    if "windows" not in data:
        return plan_from_json(data)
    atoms: dict[Atom, Plan] = {}
    for window in data["windows"]:
        plan = plan_from_json({"class": data["class"], **{name: window[name] for name in OF_AN_ATOM}})
        atoms |= {atom_from_text(name): plan for name in window["when"]}
    found = _of_atoms(atoms)
    if data.get("hash", found.hash) != found.hash:
        raise ValueError(f"the plan's hash is {found.hash}, not {data['hash']}: it was changed after it was written")
    return found


def _of_atoms(atoms: Mapping[Atom, Plan]) -> WindowedPlan:
    """The plan of all these atoms, which must fill a grid."""
    found = tuple(sorted(atoms.items(), key=lambda item: _place_of(item[0])))
    axes = [dict.fromkeys(getattr(atom, axis) for atom, _ in found) for axis in ("timesteps", "steps", "branch")]
    grid = Grid(*map(tuple, axes))
    ends = [(grid.timesteps, *WHOLE_RANGE), (grid.steps, *ALL_STEPS)]
    is_whole = all(
        cells[0][0] == low and cells[-1][1] == high and all(a[1] == b[0] for a, b in itertools.pairwise(cells))
        for cells, low, high in ends
    )
    if not is_whole or grid.branches not in ((None,), BRANCHES) or [atom for atom, _ in found] != list(grid.atoms()):
        raise ValueError("the windows of the plan leave something out, or overlap")
    return WindowedPlan(found[0][1].class_name, found)
