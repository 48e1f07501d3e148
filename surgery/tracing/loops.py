"""The loops of a function: the instructions that run again and again, each time from one head (natural loops).

Aho, Sethi, Ullman, *Compilers* (1986), section 10.4. What only an exception leads to is of no loop: from Python 3.12 on
it stands at the end of a function, and jumps back from there.
"""

import dis
import functools
import itertools
from collections.abc import Iterable, Mapping
from types import CodeType

ENDS = {"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"}
JUMPS_AWAY = {"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"}  # behind which it does not go on


@functools.lru_cache(maxsize=256)
def loops_of(code: CodeType) -> tuple[frozenset[int], ...]:
    """The offsets of the instructions of each loop, and of their caches, at which a call stands in Python 3.11."""
    leads_to = _flow(code)
    reached = _closure([min(leads_to)], leads_to)
    comes_from: dict[int, list[int]] = {offset: [] for offset in reached}
    for offset in reached:
        for following in leads_to[offset]:
            comes_from[following].append(offset)
    bodies: dict[int, set[int]] = {}
    for head in reached:
        for last in comes_from[head]:
            if last >= head:
                bodies.setdefault(head, set()).update(_closure([last], {**comes_from, head: []}), (head,))
    starts = sorted((*leads_to, len(code.co_code)))
    width = {start: range(start, stop) for start, stop in itertools.pairwise(starts)}
    return tuple(frozenset(itertools.chain.from_iterable(map(width.__getitem__, body))) for body in bodies.values())


def _flow(code: CodeType) -> dict[int, list[int]]:
    """Where each instruction leads to, exceptions aside."""
    instructions = list(dis.get_instructions(code))
    behind = {one.offset: other.offset for one, other in itertools.pairwise(instructions)}
    jumps = {*dis.hasjrel, *dis.hasjabs}
    found: dict[int, list[int]] = {}
    for one in instructions:
        goes_on = one.opname not in ENDS | JUMPS_AWAY and one.offset in behind
        found[one.offset] = [behind[one.offset]] if goes_on else []
        found[one.offset] += [one.argval] if one.opcode in jumps else []
    return found


def _closure(starts: Iterable[int], steps: Mapping[int, Iterable[int]]) -> set[int]:
    """All that can be reached."""
    pending, found = list(starts), set[int]()
    while pending:
        offset = pending.pop()
        if offset not in found:
            found.add(offset)
            pending += steps[offset]
    return found
