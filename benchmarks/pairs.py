"""Times of alternatives, taken in turn within one run, so that a noisy machine disturbs all of them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping


def median_seconds(
    alternatives: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1
) -> dict[str, float]:
    """The median time of each alternative over `rounds` rounds; each round runs all of them once, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(warmup + rounds):
        for name, run in alternatives.items():
            taken = seconds_of(run)
            if number >= warmup:
                seconds[name].append(taken)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def seconds_of(run: Callable[[], object]) -> float:
    """How long it runs, without collecting garbage, as `timeit` has it: one would pay for what all have left."""
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    finally:
        gc.enable()


def median_ratio(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    rounds: int,
    clock: Callable[[Callable[[], object]], float] = seconds_of,
) -> float:
    """The median over rounds of time(first) / time(second); the order alternates from round to round.

    `clock` runs what it is given and says how long that took, or a part of it.
    """
    ratios = []
    first(), second()
    for number in range(rounds):
        taken: dict[str, float] = {}
        order = [("first", first), ("second", second)]
        for name, run in order if number % 2 else reversed(order):
            taken[name] = clock(run)
        ratios.append(taken["first"] / taken["second"])
    return statistics.median(ratios)
