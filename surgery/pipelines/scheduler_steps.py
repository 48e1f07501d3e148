"""The scheduler of a model that is only known by its files -> where its steps lie in the noise range."""

import json
from pathlib import Path
from typing import Any

from surgery.anatomy.sources import ModelSource
from surgery.errors import InputError
from surgery.pipelines.shares import shares_of

INDEX, SCHEDULER = "model_index.json", "scheduler"


def shares_of_source(source: ModelSource, num_steps: int) -> tuple[float, ...]:
    """The shares at which each of so many steps begins, as the model's own scheduler sets them; no weights are read.

    A scheduler that shifts its timesteps by the size of the picture is asked for its largest shift.

    Raises:
        InputError: the model is no pipeline at hand, or its scheduler takes no such number of steps.
    """
    scheduler = _load_scheduler(source)
    arguments: dict[str, Any] = {}
    if scheduler.config.get("use_dynamic_shifting"):
        sigmas = [1.0 - step / num_steps for step in range(num_steps)]
        arguments = {"sigmas": sigmas, "mu": scheduler.config.get("max_shift", 1.0)}
    try:
        scheduler.set_timesteps(**(arguments or {"num_inference_steps": num_steps}))
    except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"{type(scheduler).__name__} takes no {num_steps} steps: {error}") from None
    return tuple(shares_of(scheduler)[:: getattr(scheduler, "order", 1)])


def _load_scheduler(source: ModelSource) -> Any:
    import diffusers

    folder = None if source.pipeline is None else Path(source.pipeline)
    if folder is None or not (folder / INDEX).is_file():
        fact = "is no pipeline" if folder is None else "is not on this machine"
        raise InputError(f"--steps asks the model's scheduler, and {source.name} {fact}; leave --steps out")
    try:
        _, class_name = json.loads((folder / INDEX).read_bytes())[SCHEDULER]
        return getattr(diffusers, class_name).from_pretrained(folder, subfolder=SCHEDULER)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the scheduler of {source.name} can't be read: {str(error).splitlines()[0]}") from None
