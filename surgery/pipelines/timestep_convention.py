"""How a family tells its transformer the time: learnt from a call of its pipeline in which no forward is run.

Some are given the scheduler's timestep, some its share of the noise range t, some 1 - t. The pipeline is called for a
few steps while its transformer only notes what it is given, and its scheduler which timestep it is asked to step from.
"""

import contextlib
import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from surgery.calls.example_inputs import call_key
from surgery.damage import told_as
from surgery.errors import InputError, RefusedError
from surgery.kept import keep, kept_file, recall
from surgery.pipelines.guidance import StopSampling, nothing_predicted, noting_forwards
from surgery.pipelines.probes import BOTH, probe_arguments, refusal_of
from surgery.pipelines.replaced import replaced
from surgery.pipelines.shares import num_train_timesteps_of
from surgery.tracing.arguments import parameters_of_module

Noted = dict[str, tuple[float, float]]  # of a call of a transformer: the span of what is given, by argument

SHELF = "timesteps"
NUM_PROBES = 4  # steps; a line needs three to be more than a guess
MANY_STEPS = 40  # of which some are left where a picture is only changed a little; not taken
TOLERANCE = 0.01  # of the range; timesteps in bfloat16 round to 0.004 of their size


@dataclass(frozen=True)
class TimestepConvention:
    """The argument `name` of a transformer is `scale` x (share of the noise range) + `offset`.

    It was learnt with a scheduler of `num_train` timesteps; with another number of them it may not hold.
    """

    name: str
    scale: float
    offset: float
    num_train: int

    def share_of(self, value: float) -> float:
        """The share of the noise range at a value of the argument."""
        return (value - self.offset) / self.scale


def known_convention(model: nn.Module) -> TimestepConvention | None:
    """What was learnt of a model's class and config before, and is kept in the user's cache; None without."""
    key = call_key(model)
    if key is None:
        return None
    with contextlib.suppress(InputError), told_as("it is learnt anew"):
        found = recall(kept_file(SHELF, key))
        numbers = float(found["scale"]), float(found["offset"]), int(found["num_train"])
        return TimestepConvention(str(found["name"]), *numbers)
    return None


def convention_of(pipe: Any, call: Mapping[str, Any]) -> TimestepConvention | None:
    """What is known of a pipeline's transformer with a scheduler like its own, or is learnt now."""
    known = known_convention(pipe.transformer)
    scheduler = getattr(pipe, "scheduler", None)
    if known is not None and scheduler is not None and known.num_train == num_train_timesteps_of(scheduler):
        return known
    return learn_convention(pipe, call)


def learn_convention(pipe: Any, call: Mapping[str, Any]) -> TimestepConvention | None:
    """The convention of a pipeline's transformer, which is kept; None where no argument follows the timestep in a line.

    Raises:
        InputError: the pipeline refuses the call.
    """
    if getattr(pipe, "scheduler", None) is None:
        return None
    shares, noted = _note_steps(pipe, call)
    names = dict.fromkeys(name for arguments in noted for name in arguments)
    lines = (_line_of(name, [arguments.get(name) for arguments in noted], shares, pipe) for name in names)
    found = next((line for line in lines if line is not None), None)
    key = call_key(pipe.transformer)
    if found is not None and key is not None:
        keep(kept_file(SHELF, key), asdict(found))
    return found


def _note_steps(pipe: Any, call: Mapping[str, Any]) -> tuple[list[float], list[Noted]]:
    """The share of each of a few steps, and the numbers that the transformer is given in it; of two pictures, or of one
    where the pipeline takes no two."""
    failure: InputError | None = None
    for numbers in (BOTH, BOTH[:1]):
        try:
            return _note_steps_of(pipe, call, numbers)
        except InputError as error:
            failure = failure or error
    assert failure is not None, "both ways were tried"
    raise failure


def _note_steps_of(pipe: Any, call: Mapping[str, Any], numbers: Sequence[int]) -> tuple[list[float], list[Noted]]:
    names = parameters_of_module(pipe.transformer)
    num_train = num_train_timesteps_of(pipe.scheduler)
    shares: list[float] = []
    noted: list[Noted] = []
    pending: list[Noted] = []

    def note(*args: Any, **kwargs: Any) -> Any:
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        pending.append({name: span for name, value in named.items() if (span := _span_of(value)) is not None})
        return nothing_predicted(named)

    signature = inspect.signature(pipe.scheduler.step)

    @functools.wraps(pipe.scheduler.step)  # pipelines look at its signature
    def stay(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(*args, **kwargs).arguments  # not every scheduler has them in the same order
        shares.append(float(given["timestep"]) / num_train)
        noted.append(pending[-1] if pending else {})
        pending.clear()
        if len(shares) == NUM_PROBES:
            raise StopSampling
        sample = given["sample"]
        return SimpleNamespace(prev_sample=sample) if given.get("return_dict", True) else (sample, sample)

    left_out = ("timesteps", "sigmas", "num_inference_steps")
    kept = {name: value for name, value in call.items() if name not in left_out}
    arguments = {**probe_arguments(pipe, kept, numbers), "num_inference_steps": MANY_STEPS}
    noise = [torch.Generator().manual_seed(number) for number in numbers]
    with noting_forwards(pipe, note), replaced(pipe.scheduler, "step", stay):
        try:
            pipe(**arguments, generator=noise, output_type="latent")
        except StopSampling:
            pass
        except Exception as error:  # as pipelines answer to odd values
            if not shares:
                raise refusal_of(pipe, error) from error
    return shares, noted


def _span_of(value: Any) -> tuple[float, float] | None:
    """The least and the greatest of a few numbers, in a tensor or not: a time for each token is two, or more."""
    if isinstance(value, torch.Tensor) and value.numel() > 0 and not value.is_complex() and value.ndim <= 2:
        values = value.detach().double()
        return float(values.min()), float(values.max())
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (float(value), float(value)) if is_number else None


def _line_of(
    name: str, spans: list[tuple[float, float] | None], shares: list[float], pipe: Any
) -> TimestepConvention | None:
    """The convention by which an argument has these values at these shares; None where it is no line.

    Of several times, it is the noisiest that follows the sampler: the others are those of a given picture.
    """
    known = [(share, *span) for share, span in zip(shares, spans, strict=True) if span is not None]
    if len(known) < len(shares) or len({share for share, *_ in known}) < NUM_PROBES - 1:
        return None
    x, lowest, highest = np.array(known).T
    num_train = float(num_train_timesteps_of(pipe.scheduler))
    usual = ((num_train, 0.0), (1.0, 0.0), (-1.0, 1.0), (-num_train, num_train))
    fitted = [tuple(float(number) for number in np.polyfit(x, y, 1)) for y in (lowest, highest)]
    for scale, offset in (*usual, *fitted):
        y = highest if scale > 0 else lowest
        is_line = scale and np.abs(scale * x + offset - y).max() <= TOLERANCE * abs(scale)
        if is_line and np.ptp(y) > TOLERANCE * abs(scale):
            return TimestepConvention(name, scale, offset, int(num_train))
    return None


def share_of_rows(convention: TimestepConvention, named: Mapping[str, Any], num_rows: int) -> list[float]:
    """The share of the noise range of each row, by what the transformer is given; of times for tokens the noisiest.

    Raises:
        RefusedError: it is not given the argument, or no time a row.
    """
    value = named.get(convention.name)
    numbers = value.detach().double().tolist() if isinstance(value, torch.Tensor) else value
    rows = numbers if isinstance(numbers, list) else [numbers] * num_rows
    if len(rows) == 1:
        rows = rows * num_rows
    found = [_numbers_of(row) for row in rows]
    if len(found) != num_rows or not all(found):
        raise RefusedError(
            f"the argument {convention.name}, which tells the timestep, is no number for each row; windows (when) "
            "can't tell where a row stands"
        )
    return [max(map(convention.share_of, numbers)) for numbers in found]


def _numbers_of(row: Any) -> set[float]:
    """The numbers that a row is, or holds; none where it holds something else."""
    flat = row if isinstance(row, list) else [row]
    return set(map(float, flat)) if all(isinstance(item, (int, float)) for item in flat) else set()
