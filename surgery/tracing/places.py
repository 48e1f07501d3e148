"""Where in a forward's code an operation is done: in the turn of the loop that calls a block, before the call or after.

A forward calls its blocks in a loop, or in a function that it runs for each. What is done in such a turn before the
block is called leads into this block, and what is done after it leads out: that is the order of the code itself.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import CodeType

from torch import fx

from surgery.tracing.loops import loops_of

Place = tuple[tuple[CodeType, int], ...]  # the functions that run, outermost first, each with the instruction it is at

INTERNALS = ("torch.", "surgery.tracing.")


class Side(Enum):
    """How an operation stands to the call of a block in one turn."""

    BEFORE = auto()
    AFTER = auto()


def current_place(code: CodeType | None) -> Place:
    """Where the forward with this code is now, in it and in the submodules that are traced with it.

    What torch does in between is left out. Nowhere if the forward is not running.
    """
    found: list[tuple[CodeType, int]] = []
    frame = inspect.currentframe()
    while frame is not None:
        if not f"{frame.f_globals.get('__name__', '')}.".startswith(INTERNALS):
            found.append((frame.f_code, frame.f_lasti))
        if frame.f_code is code:
            return tuple(reversed(found))
        frame = frame.f_back
    return ()


def place_of(node: fx.Node) -> Place:
    """Where a node of a traced graph was made."""
    place: Place = node.meta.get("place", ())
    return place


@dataclass(frozen=True)
class Turn:
    """The turn in which a block is called at `call`: the instructions `body` of function number `level` of its place.

    What the functions above are at is the same for all that happens in the turn.
    """

    call: Place
    level: int
    body: frozenset[int]

    def side(self, place: Place) -> Side | None:
        """On which side of the call an operation stands in the same turn; None if it does not, or is not told."""
        inner = place[self.level :]
        if place[: self.level] != self.call[: self.level] or not inner or inner[0][1] not in self.body:
            return None
        for (code, offset), (called, at) in zip(inner, self.call[self.level :], strict=False):
            if code is not called:
                return None
            if offset != at:
                return Side.BEFORE if offset < at else Side.AFTER
        return None


def turns_of(calls: Sequence[fx.Node]) -> list[Turn] | None:
    """The turns in which the blocks of a stack are called one by one; None where the code does not tell them apart.

    That is the innermost loop around each call, in whichever function it stands; without one, the function that is
    called anew for each block.
    """
    places = [place_of(call) for call in calls]
    if len(places) < 2:  # a loop of one round may be one over anything
        return None
    turns = [_innermost_loop(place) for place in places]
    if None not in turns:
        found = [turn for turn in turns if turn is not None]
        return found if all(map(_is_another_round, found, found[1:])) else None
    level = _level_of_difference(places)
    if level is None or any(turns) or any(len(place) <= level + 1 for place in places):
        return None
    return [Turn(place, level + 1, frozenset(range(len(place[level + 1][0].co_code)))) for place in places]


def _innermost_loop(place: Place) -> Turn | None:
    for level, (code, offset) in reversed(list(enumerate(place))):
        around = [body for body in loops_of(code) if offset in body]
        if around:
            return Turn(place, level, min(around, key=len))
    return None


def _is_another_round(one: Turn, other: Turn) -> bool:
    """Whether the second of two calls is of another loop, or of a later round: its code is not further below."""
    is_same_loop = (one.level, one.body, one.call[: one.level]) == (other.level, other.body, other.call[: other.level])
    return not is_same_loop or _offsets(other) <= _offsets(one)


def _offsets(turn: Turn) -> list[int]:
    return [offset for _, offset in turn.call[turn.level :]]


def _level_of_difference(places: Sequence[Place]) -> int | None:
    """The one function in which all calls stand apart, and up to which they have the same way; None without one."""
    shortest = min(map(len, places))
    level = next((n for n in range(shortest) if len({place[n] for place in places}) > 1), None)
    if level is None or len({place[level] for place in places}) < len(places):
        return None
    return level
