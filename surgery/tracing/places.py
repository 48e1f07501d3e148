"""Where in a forward's code an operation is done: in the turn of the loop that calls a block, before the call or after.

A forward calls its blocks in a loop, or in a function that it runs for each. What is done in such a turn before the
block is called leads into this block, and what is done after it leads out: that is the order of the code itself.
"""

import dis
import functools
import inspect
from dataclasses import dataclass
from enum import Enum, auto
from types import CodeType

from torch import fx

Place = tuple[tuple[CodeType, int], ...]  # the functions that run, outermost first, each with the instruction it is at

INTERNALS = ("torch.", "surgery.tracing.")


class Side(Enum):
    """How an operation stands to the call of a block in one turn."""

    BEFORE = auto()
    AFTER = auto()


def current_place(code: CodeType | None) -> Place:
    """Where the forward with this code is now, down to where it enters torch; nowhere if it is not running."""
    found: list[tuple[CodeType, int]] = []
    frame = inspect.currentframe()
    while frame is not None:
        found.append((frame.f_code, frame.f_lasti))
        if frame.f_code is code:
            return tuple(reversed(found))
        if f"{frame.f_globals.get('__name__', '')}.".startswith(INTERNALS):
            found.clear()
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
    body: range

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


def turn_of(call: fx.Node) -> Turn | None:
    """The turn of the call of a block: of the outermost loop around it, else the function that calls it.

    None where the forward itself calls the block, and not in a loop.
    """
    place = place_of(call)
    for level, (code, offset) in enumerate(place):
        around = [body for body in _loops(code) if offset in body]
        if around:
            return Turn(place, level, min(around, key=lambda body: body.start))
    return Turn(place, 1, range(len(place[1][0].co_code))) if len(place) > 1 else None


@functools.lru_cache(maxsize=256)
def _loops(code: CodeType) -> tuple[range, ...]:
    """The instructions of every loop of a function: up to where a `for` ends, or to the last jump back of a `while`."""
    found = []
    for instruction in dis.get_instructions(code):
        if instruction.opcode not in dis.hasjrel and instruction.opcode not in dis.hasjabs:
            continue
        if instruction.opname == "FOR_ITER":
            found.append(range(instruction.offset, instruction.argval))
        elif instruction.argval < instruction.offset:
            found.append(range(instruction.argval, instruction.offset + 1))
    return tuple(found)
