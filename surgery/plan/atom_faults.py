"""The faults of all atoms of a spec as those of the spec: what is wrong in some of them only says in which."""

from collections.abc import Mapping, Sequence

from surgery.plan.atoms import Atom, operations_within
from surgery.plan.windowed import names_of
from surgery.spec.operations import AnyOperation
from surgery.spec.places import Faults, Place


def join_faults(faults: Faults, found: Mapping[Atom, Faults], operations: Sequence[AnyOperation]) -> None:
    """Add the faults that were found in atoms to those of the spec.

    One that is met wherever its operation applies is told as without windows; another one with the atoms where it is.
    """
    where: dict[tuple[Place, str], list[Atom]] = {}
    for atom, met in found.items():
        for place, text in met.found:
            where.setdefault((place, text), []).append(atom)
    for (place, text), atoms in where.items():
        is_everywhere = len(atoms) == sum(_applies(place, operations, atom) for atom in found)
        faults.add(place, text if is_everywhere else f"within {names_of(atoms)}: {text}")


def _applies(place: Place, operations: Sequence[AnyOperation], atom: Atom) -> bool:
    """Whether the operation that stands at a place applies in an atom; what stands before all of them always does."""
    before = [operation for operation in operations if operation.place <= place]
    return not before or bool(operations_within([max(before, key=lambda item: item.place)], atom))
