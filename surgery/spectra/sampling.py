"""A pipeline and prompts -> its trajectories: at each step the state, and the clean picture predicted from it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from surgery.errors import InputError
from surgery.pipelines.conditions import arguments_of, conditions_of
from surgery.pipelines.draw import check_call, refuse_long_videos
from surgery.pipelines.noised import picture_size
from surgery.pipelines.replaced import replaced
from surgery.pipelines.shares import share_of, shares_of
from surgery.spectra.latent_pictures import LatentLayout, find_layout, pictures_of_answer
from surgery.spectra.prediction import NoiseLevel, noise_level, predict_clean


@dataclass(frozen=True, eq=False)
class SampledStep:
    """One step of a batch: where it lies in the noise range, and what was there (batch, channels, height, width)."""

    share: float
    level: NoiseLevel
    state: torch.Tensor
    predicted: torch.Tensor


@dataclass(frozen=True, eq=False)
class Sampled:
    """What a batch of prompts gave: its steps (none where nobody asked), its last latents, and its pictures
    (batch, 3, height, width) from 0 to 1, None where they were not decoded.
    """

    steps: tuple[SampledStep, ...]
    latents: torch.Tensor
    pictures: torch.Tensor | None


@dataclass
class _Notes:
    """What is noted while a pipeline samples."""

    pipe: Any
    num_pictures: int
    with_steps: bool
    size: tuple[int, int] | None
    on_step: Callable[[], None]
    layout: LatentLayout | None = None
    steps: dict[float, SampledStep] = field(default_factory=dict)
    num_calls: int = 0
    last: torch.Tensor | None = None

    def before(self, prediction: torch.Tensor, timestep: Any, sample: torch.Tensor) -> None:
        """The scheduler is about to step. Of equal timesteps the last counts: those before it were trials."""
        scheduler = self.pipe.scheduler
        if self.layout is None:
            self.layout = find_layout(self.pipe, sample, self.size)
            shares_of(scheduler)  # which refuses those that count otherwise
        is_first_of_step = self.num_calls % getattr(scheduler, "order", 1) == 0
        self.num_calls += 1
        self.on_step()
        if not self.with_steps or not is_first_of_step:
            return
        share, level = share_of(scheduler, timestep), noise_level(scheduler, timestep)
        predicted = predict_clean(scheduler, level, sample, prediction)
        pictures = (self.layout.pictures(value, self.num_pictures).float().cpu() for value in (sample, predicted))
        self.steps[share] = SampledStep(share, level, *pictures)

    def after(self, answer: Any) -> None:
        """It has stepped."""
        self.last = answer[0] if isinstance(answer, tuple) else answer.prev_sample


def sample_batch(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    call: Mapping[str, Any],
    *,
    with_steps: bool = True,
    with_pictures: bool = True,
    on_step: Callable[[], None] = lambda: None,
) -> Sampled:
    """Sample one batch: each prompt from the noise of the CPU generator of its seed, as `generate` draws.

    The predicted clean picture is that of the prediction that the scheduler is given, so after guidance.

    Raises:
        InputError: the pipeline refuses the call, samples videos, or no pictures.
        RefusedError: its latents are packed, or its scheduler predicts, in a way that is not known.
    """
    check_call(pipe, call)
    refuse_long_videos(pipe, call)
    notes = _Notes(pipe, len(prompts), with_steps, _size_of(pipe, call), on_step)
    output_type = "np" if with_pictures else "latent"
    noise = [torch.Generator().manual_seed(seed) for seed in seeds]
    given = arguments_of(pipe, conditions_of(pipe, prompts), call)
    with replaced(pipe.scheduler, "step", _noting(pipe.scheduler.step, notes)):
        try:
            answer = pipe(**given, generator=noise, output_type=output_type)
        except (ValueError, TypeError, AttributeError, LookupError) as error:  # as pipelines answer to odd values
            raise InputError(f"{type(pipe).__name__} refuses the call: {error}") from error
    if notes.last is None or notes.layout is None:
        raise InputError(f"{type(pipe).__name__} takes no step of its scheduler in this call; sample at least one")
    latents = notes.layout.pictures(notes.last, len(prompts)).float().cpu()
    _refuse_unfinished(latents, "latents")
    steps = tuple(notes.steps.values())
    for step in steps:
        _refuse_unfinished(step.predicted, f"predictions at {step.share:.3f} of the noise range")
    return Sampled(steps, latents, pictures_of_answer(pipe, answer) if with_pictures else None)


def _noting(take_step: Callable[..., Any], notes: _Notes) -> Callable[..., Any]:
    """A `step` that notes what it is given and what comes of it."""

    @functools.wraps(take_step)  # pipelines look at its signature
    def step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        notes.before(model_output, timestep, sample)
        answer = take_step(model_output, timestep, sample, *args, **kwargs)
        notes.after(answer)
        return answer

    return step


def _size_of(pipe: Any, call: Mapping[str, Any]) -> tuple[int, int] | None:
    """The height and width in pixels, which only packed latents are asked for; None where nothing says."""
    try:
        return picture_size(pipe, call)
    except (InputError, AttributeError):
        return None


def _refuse_unfinished(values: torch.Tensor, what: str) -> None:
    if not torch.isfinite(values).all():
        raise InputError(f"the {what} are no finite numbers, so that they have no spectrum; try --dtype float32")
