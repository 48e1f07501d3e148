"""Timesteps of schedulers as shares of the noise range."""

from typing import Any

from surgery.errors import InputError

NEXT_TO_CLEAN = 0.01  # of the noise range: no sampler begins there


def num_train_timesteps_of(scheduler: Any) -> int:
    """How many timesteps the noise range has.

    Raises:
        InputError: the scheduler knows none: it counts in noise levels.
    """
    found = scheduler.config.get("num_train_timesteps")
    if not isinstance(found, (int, float)) or not found > 0:
        raise InputError(f"{type(scheduler).__name__} has no num_train_timesteps; its timesteps are none of training")
    return int(found)


def share_of(scheduler: Any, timestep: Any) -> float:
    """Where a timestep of a scheduler lies in the noise range: 0 clean, 1 pure noise.

    Raises:
        InputError: the scheduler's timesteps are not those of training.
    """
    share = float(timestep) / num_train_timesteps_of(scheduler)
    if not 0 <= share <= 1:
        raise InputError(f"{type(scheduler).__name__} steps at {float(timestep):g}, which is no timestep of training")
    return share


def shares_of(scheduler: Any) -> list[float]:
    """Where all timesteps of a scheduler lie in the noise range, in their order.

    Raises:
        InputError: they are not those of training; so too where all of them would be next to clean, as of schedulers
            that count otherwise (in noise levels from 0 to 1, or in angles).
    """
    timesteps = scheduler.timesteps.tolist()
    found = [share_of(scheduler, value) for value in timesteps]
    if max(found) < NEXT_TO_CLEAN:
        raise InputError(
            f"{type(scheduler).__name__} has timesteps up to {max(timesteps):g}, where training has "
            f"{num_train_timesteps_of(scheduler):,}: it counts otherwise"
        )
    return found
