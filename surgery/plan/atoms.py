"""What the windows of a spec cut sampling into: atoms, within which the same operations apply."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from surgery.spec.operations import BRANCHES, AnyOperation, StepRange, When

WHOLE_RANGE, ALL_STEPS = (0.0, 1.0), (0, None)
EDGE = 1e-6  # of the noise range: schedulers hold their timesteps in float32, which rounds 1000 times a share to 6e-5


@dataclass(frozen=True)
class Atom:
    """A window of timesteps (shares of the noise range, half open but for 1.0), of steps, and a branch or all."""

    timesteps: tuple[float, float] = WHOLE_RANGE
    steps: StepRange = ALL_STEPS
    branch: str | None = None

    def holds(self, share: float, step: int, branch: str) -> bool:
        """Whether a forward there lies within it."""
        low, high = self.timesteps
        first, end = self.steps
        is_in_time = low - EDGE <= share and (share < high - EDGE or high == 1.0)
        is_in_steps = first <= step and (end is None or step < end)
        return is_in_time and is_in_steps and self.branch in (None, branch)

    def holds_all(self, other: Atom) -> bool:
        """Whether all of another atom lies within it."""
        first, end = other.steps
        is_in_time = self.timesteps[0] <= other.timesteps[0] and other.timesteps[1] <= self.timesteps[1]
        is_in_steps = self.steps[0] <= first and (self.steps[1] is None or (end is not None and end <= self.steps[1]))
        return is_in_time and is_in_steps and self.branch in (None, other.branch)

    @property
    def text(self) -> str:
        """`timesteps 0:0.3, steps 0:5, branch conditional`, of these what is not all; nothing where all is."""
        parts = []
        if self.timesteps != WHOLE_RANGE:
            parts.append("timesteps {}:{}".format(*map(number_text, self.timesteps)))
        if self.steps != ALL_STEPS:
            first, end = self.steps
            parts.append(f"steps {first}:{'' if end is None else end}")
        if self.branch is not None:
            parts.append(f"branch {self.branch}")
        return ", ".join(parts)


def atom_from_text(text: str) -> Atom:
    """The atom of a text.

    Raises:
        ValueError: it is malformed.
    """
    atom = Atom()
    for part in text.split(", "):
        name, _, value = part.partition(" ")
        first, _, end = value.partition(":")
        match name:
            case "timesteps":
                atom = replace(atom, timesteps=(float(first), float(end)))
            case "steps":
                atom = replace(atom, steps=(int(first), int(end) if end else None))
            case "branch" if value in BRANCHES:
                atom = replace(atom, branch=value)
            case _:
                raise ValueError(f"an atom has timesteps, steps and a branch, not {part!r}")
    return atom


def number_text(share: float) -> str:
    """The shortest text that is read as the same number."""
    return str(int(share)) if share == int(share) else repr(share)


@dataclass(frozen=True)
class Grid:
    """The cells into which all of sampling is cut along each of its axes, ascending."""

    timesteps: tuple[tuple[float, float], ...] = (WHOLE_RANGE,)
    steps: tuple[StepRange, ...] = (ALL_STEPS,)
    branches: tuple[str | None, ...] = (None,)

    def atoms(self) -> Iterator[Atom]:
        """All of them: by timesteps, then steps, then branch."""
        for cell in itertools.product(self.timesteps, self.steps, self.branches):
            yield Atom(*cell)

    def __len__(self) -> int:
        return len(self.timesteps) * len(self.steps) * len(self.branches)


def cut_by_windows(windows: Iterable[When]) -> Grid:
    """The coarsest grid in each of whose atoms each of these windows holds throughout or not at all."""
    atoms = [
        Atom(window.timesteps or WHOLE_RANGE, part, window.branch)
        for window in windows
        for part in window.steps or (ALL_STEPS,)
    ]
    return cut_by_atoms(atoms)


def cut_by_atoms(atoms: Iterable[Atom]) -> Grid:
    """The coarsest grid each of whose atoms lies within each of these or outside of it."""
    timesteps, steps, is_split = {0.0, 1.0}, {0}, False
    for atom in atoms:
        timesteps |= set(atom.timesteps)
        steps |= {edge for edge in atom.steps if edge is not None}
        is_split |= atom.branch is not None
    edges = sorted(steps)
    return Grid(
        tuple(itertools.pairwise(sorted(timesteps))),
        (*itertools.pairwise(edges), (edges[-1], None)),
        BRANCHES if is_split else (None,),
    )


def operations_within(operations: Sequence[AnyOperation], atom: Atom) -> tuple[AnyOperation, ...]:
    """Those that apply in an atom of the grid that their windows cut."""
    return tuple(item for item in operations if item.when is None or _covers(item.when, atom))


def _covers(window: When, atom: Atom) -> bool:
    parts = (Atom(window.timesteps or WHOLE_RANGE, part, window.branch) for part in window.steps or (ALL_STEPS,))
    return any(part.holds_all(atom) for part in parts)
