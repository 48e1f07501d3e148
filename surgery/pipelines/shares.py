"""Timesteps of schedulers as shares of the noise range."""

from typing import Any

from surgery.errors import InputError


def share_of(scheduler: Any, timestep: Any) -> float:
    """Where a timestep of a scheduler lies in the noise range: 0 clean, 1 pure noise.

    Raises:
        InputError: the scheduler's timesteps are not those of training.
    """
    share = float(timestep) / scheduler.config.num_train_timesteps
    if not 0 <= share <= 1:
        raise InputError(f"{type(scheduler).__name__} steps at {float(timestep):g}, which is no timestep of training")
    return share
