"""accelerate's Accelerator, opened for the settings of a run: precision, processes, trackers."""

from pathlib import Path
from typing import Any

from surgery.errors import InputError
from surgery.training.settings import TrainingSettings


def open_accelerator(settings: TrainingSettings, folder: Path, *, device: str = "auto") -> Any:
    """What places, runs and records a run; under `accelerate launch` one a process. Trackers write into `folder`.

    Raises:
        InputError: there is no such device, precision or tracker here.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import is_initialized
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

    if device not in ("auto", "cpu"):
        raise InputError(f"the device is {device}; write auto or cpu (accelerate launch chooses among several)")
    known = [str(kind.value) for kind in LoggerType if kind is not LoggerType.ALL]
    unknown = [name for name in settings.trackers if name not in known]
    if unknown:
        raise InputError(f"there is no tracker {unknown[0]}; write {', '.join(known)}")
    found = {str(kind.value) for kind in get_available_trackers()}
    missing = [name for name in settings.trackers if name not in found]
    if missing:
        raise InputError(f"the tracker {missing[0]} is not installed here; install it, or leave it out")
    is_second = is_initialized()
    try:
        accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision=settings.precision,
            log_with=list(settings.trackers) or None,
            project_dir=str(folder / "logs"),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # of blocks near an end
        )
    except (ValueError, ImportError) as error:
        if is_second:
            raise InputError(
                f"this process has trained with another precision or on another device before, and accelerate keeps to "
                f"these; train with precision {settings.precision} on {device} in a process of its own"
            ) from None
        raise InputError(f"accelerate refuses precision {settings.precision} on {device}: {error}") from None
    return accelerator


def start_trackers(accelerator: Any, settings: TrainingSettings, folder: Path) -> None:
    """Let the trackers of a run begin; they name it after its folder."""
    if settings.trackers:
        plain = {name: value for name, value in settings.to_json().items() if isinstance(value, (int, float, str))}
        accelerator.init_trackers(folder.name, config=plain)
