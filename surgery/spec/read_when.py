"""`when: {timesteps: [0.0, 0.3], steps: "0:5", branch: conditional}` -> When."""

import re

from surgery.spec.document import Entries, Items, Scalar, Value
from surgery.spec.fields import check_keys, describe, read_choice, read_number
from surgery.spec.grammar import WHEN
from surgery.spec.limits import MAX_INDEX, MAX_WINDOWS
from surgery.spec.operations import StepRange, When
from surgery.spec.places import Faults

STEP_RANGE = re.compile(r"\s*([0-9]{0,9})\s*:\s*([0-9]{0,9})\s*")
EXAMPLE = '{timesteps: [0.0, 0.3]}, {steps: "0:5"} or {branch: conditional}'


def read_when(value: Value, faults: Faults) -> When | None:
    """One or several of a window of timesteps, steps and a branch, which all must hold; None (and a fault) without."""
    if not isinstance(value, Entries):
        faults.add(value.place, f"when is {describe(value)}; write {EXAMPLE}")
        return None
    if not value.entries:
        faults.add(value.place, f"when is empty; write {EXAMPLE}")
    entries = check_keys(value, WHEN, "when", faults)
    window, steps, branch = entries.get("timesteps"), entries.get("steps"), entries.get("branch")
    return When(
        timesteps=None if window is None else _read_window(window, faults),
        steps=None if steps is None else _read_steps(steps, faults),
        branch=None if branch is None else read_choice(branch, "branch", WHEN["branch"].choices, faults),
        place=value.place,
    )


def _read_window(value: Value, faults: Faults) -> tuple[float, float] | None:
    if not isinstance(value, Items) or len(value.items) != 2:
        number = len(value.items) if isinstance(value, Items) else None
        fact = f"is {describe(value)}" if number is None else f"has {number} value{'s' * (number != 1)}"
        faults.add(value.place, f"timesteps {fact}; write two numbers, like [0.0, 0.3]")
        return None
    low, high = (read_number(item, "a timestep", faults) for item in value.items)
    if low is None or high is None:
        return None
    if not 0.0 <= low < high <= 1.0:
        faults.add(
            value.place, f"the window [{low:g}, {high:g}] is not within [0, 1] and rising; 0 is clean, 1 is pure noise"
        )
        return None
    return (low + 0.0, high)  # -0.0 is 0.0


def _read_steps(value: Value, faults: Faults) -> tuple[StepRange, ...] | None:
    """The steps, ascending and joined where they touch."""
    items = value.items if isinstance(value, Items) else (value,)
    if not items:
        faults.add(value.place, 'steps is an empty list; write steps, like "0:5" or [0, 2, "5:8"]')
        return None
    if len(items) > MAX_WINDOWS:
        faults.add(value.place, f'steps has {len(items):,} parts; write at most {MAX_WINDOWS}, ranges like "0:5"')
        return None
    found = [_read_step(item, faults) for item in items]
    kept = [part for part in found if part is not None]
    return join_steps(kept) if len(kept) == len(found) else None


def _read_step(value: Value, faults: Faults) -> StepRange | None:
    number = value.value if isinstance(value, Scalar) else None
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < MAX_INDEX:
        return (number, number + 1)
    match = STEP_RANGE.fullmatch(number) if isinstance(number, str) else None
    if match is None:
        faults.add(
            value.place,
            f'a part of steps is {describe(value)}; steps count from 0 at the noisy end; write "0:5", "5:" or [0, 2]',
        )
        return None
    start, stop = int(match[1] or 0), int(match[2]) if match[2] else None
    if start >= MAX_INDEX or (stop is not None and not start < stop <= MAX_INDEX):
        faults.add(value.place, f'{describe(value)} holds no step; ranges are half open and rise, like "0:5"')
        return None
    return (start, stop)


def join_steps(parts: list[StepRange]) -> tuple[StepRange, ...]:
    """Half-open ranges of steps as the fewest that cover the same, ascending; None as an end is the last step."""
    joined: list[StepRange] = []
    for start, stop in sorted(parts, key=lambda part: part[0]):
        if joined and (joined[-1][1] is None or start <= joined[-1][1]):
            last = joined[-1][1]
            joined[-1] = (joined[-1][0], None if last is None or stop is None else max(last, stop))
        else:
            joined.append((start, stop))
    return tuple(joined)
