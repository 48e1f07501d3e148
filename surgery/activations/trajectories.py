"""A pipeline that samples -> the sums of a recorder: every forward, at its step's share of the noise range."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from surgery.activations.padding import PaddingFinder
from surgery.activations.recorder import Recorder
from surgery.errors import InputError
from surgery.pipelines.conditions import arguments_of, conditions_of
from surgery.pipelines.guidance import Guidance
from surgery.pipelines.replaced import replaced
from surgery.pipelines.shares import share_of


class StepClock:
    """Counts the forwards of a step, and settles what was measured when the pipeline's scheduler takes the step."""

    def __init__(self, recorder: Recorder, guidance: Guidance, on_step: Callable[[], None]) -> None:
        self.recorder = recorder
        self.guidance = guidance
        self.on_step = on_step
        self.number = 0

    def branches_of_rows(self, rows: int) -> Sequence[str]:
        """The branches of the rows of the forward at hand."""
        return self.guidance.branches_of_rows(self.number, rows)

    def count_forward(self, *_hook: Any) -> None:
        """A forward hook."""
        self.number += 1

    def settle(self, share: float) -> None:
        """The step is taken."""
        self.recorder.settle(share)
        self.number = 0
        self.on_step()


@contextmanager
def watched(
    pipe: Any, recorder: Recorder, guidance: Guidance, on_step: Callable[[], None] = lambda: None
) -> Iterator[PaddingFinder]:
    """Within it, what the pipeline draws is measured. The finder of padding is to be told of each batch."""
    clock, padding = StepClock(recorder, guidance, on_step), PaddingFinder()
    recorder.branches_of_rows, recorder.find_mask = clock.branches_of_rows, padding.find_mask
    take_step = pipe.scheduler.step

    @functools.wraps(take_step)  # pipelines look at its signature
    def step(model_output: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        clock.settle(share_of(pipe.scheduler, timestep))
        return take_step(model_output, timestep, *args, **kwargs)

    with recorder, replaced(pipe.scheduler, "step", step), padding.listening(pipe):
        handle = recorder.model.register_forward_hook(clock.count_forward)
        try:
            yield padding
        finally:
            handle.remove()


def measure_trajectories(
    pipe: Any,
    recorder: Recorder,
    guidance: Guidance,
    prompts: Sequence[str],
    seeds: Sequence[int],
    call: Mapping[str, Any],
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Measure one batch: a trajectory a prompt, from the noise of the CPU generator of its seed, as `generate` draws.

    Raises:
        InputError: the pipeline refuses the call, or a layer gives values that are no finite numbers.
    """
    noise = [torch.Generator().manual_seed(seed) for seed in seeds]
    given = arguments_of(pipe, conditions_of(pipe, prompts), call)
    with watched(pipe, recorder, guidance, on_step) as padding:
        padding.start(prompts)
        try:
            pipe(**given, generator=noise, output_type="latent")
        except (ValueError, TypeError, AttributeError, LookupError) as error:  # as pipelines answer to odd values
            raise InputError(f"{type(pipe).__name__} refuses the call: {error}") from error
    recorder.finish_trajectory()
