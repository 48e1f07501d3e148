"""A pipeline that samples -> where each call of its transformer stands, from its scheduler's own timesteps."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from surgery.errors import InputError, RefusedError
from surgery.pipelines.guidance import Guidance
from surgery.pipelines.learn import first_call
from surgery.pipelines.probes import PROBES
from surgery.pipelines.shares import shares_of
from surgery.pipelines.standing import Standing
from surgery.pipelines.timestep_convention import TimestepConvention, share_of_rows


class SamplerClock:
    """Reads the scheduler of one call of a pipeline.

    `convention` says how the transformer is given the time, None where that is no line in the timestep; `guidance` how
    the rows are laid out, None where nobody asks for their branches; `num_steps` are the steps that the windows need.
    """

    def __init__(
        self, pipe: Any, convention: TimestepConvention | None, guidance: Guidance | None, num_steps: int
    ) -> None:
        self.pipe = pipe
        self.convention = convention
        self.guidance = guidance
        self.num_steps = num_steps
        self.timesteps: Any = None  # the scheduler's, held so that another run's are another object
        self.shares: list[float] = []
        self.position = self.first = -1
        self.num_forwards = 0  # of the present position
        self.prompts: int | None = None

    def tell(self, model: nn.Module, named: Mapping[str, Any], num_rows: int) -> Sequence[Standing]:
        """Where the rows of a call stand."""
        self._note_run()
        position = self._position_of(model, named, num_rows)
        self.num_forwards = self.num_forwards + 1 if position == self.position else 0
        if self.first < 0:
            self._begin(position, named, num_rows)
        self.position = position
        order = getattr(self.pipe.scheduler, "order", 1)
        step = position // order - self.first // order
        return [Standing(self.shares[position], step, branch) for branch in self._branches(num_rows)]

    def _note_run(self) -> None:
        """A scheduler whose timesteps are set anew begins another run."""
        timesteps = self.pipe.scheduler.timesteps
        if timesteps is self.timesteps:
            return
        self.timesteps = timesteps
        self.shares = shares_of(self.pipe.scheduler)
        self.position = self.first = -1

    def _position_of(self, model: nn.Module, named: Mapping[str, Any], num_rows: int) -> int:
        """The index in the scheduler's timesteps: what it says itself, else by what the transformer is given."""
        scheduler = self.pipe.scheduler
        counter = getattr(scheduler, "counter", None)  # PNDM's, which repeats timesteps and has no step_index
        if counter is not None and self.first >= 0:
            return self.first + int(counter)
        own = [getattr(scheduler, name, None) for name in ("step_index", "begin_index")]
        stated = next((int(index) for index in own if index is not None), None)
        if stated is not None and stated < len(self.shares):
            return stated
        if self.convention is None:
            raise RefusedError(
                f"{type(scheduler).__name__} does not say at which timestep it is, and what {type(model).__name__} is "
                "given does not tell; windows (when) can't run here"
            )
        share = share_of_rows(self.convention, named, num_rows)[0]
        return min(range(len(self.shares)), key=lambda index: abs(self.shares[index] - share))

    def _begin(self, position: int, named: Mapping[str, Any], num_rows: int) -> None:
        """The first call of a run: what hangs on the whole of it, and whether scheduler and transformer agree."""
        self.first = position
        order = getattr(self.pipe.scheduler, "order", 1)
        num_steps = -(-(len(self.shares) - position) // order)
        if self.num_steps > num_steps:
            raise InputError(
                f"the windows of the spec go up to step {self.num_steps} (when: steps), and the sampler takes "
                f"{num_steps} steps; write steps within 0:{num_steps}, or sample with more"
            )
        self.prompts = None
        if self.convention is None or self.convention.name not in named:
            return
        share = share_of_rows(self.convention, named, num_rows)[0]
        if abs(share - self.shares[position]) > MAX_DIFFERENCE:
            raise RefusedError(
                f"{type(self.pipe.scheduler).__name__} is at {self.shares[position]:.3f} of the noise range, and "
                f"{type(self.pipe).__name__} gives its transformer {self.convention.name} = {share:.3f} of it; which "
                "of the two windows (when) mean is not known"
            )

    def _branches(self, num_rows: int) -> Sequence[str | None]:
        if self.guidance is None:
            return [None] * num_rows
        forwards = self.guidance.forwards
        if self.num_forwards >= len(forwards):
            raise RefusedError(self._other_layout(f"its transformer runs {self.num_forwards + 1} times in a step"))
        of_a_prompt = len(forwards[self.num_forwards]) // len(PROBES)
        prompts, rest = divmod(num_rows, of_a_prompt)
        self.prompts = prompts if self.prompts is None else self.prompts
        if rest or prompts != self.prompts:
            raise RefusedError(self._other_layout(f"its transformer is given {num_rows} rows"))
        return self.guidance.branches_of_rows(self.num_forwards, num_rows)

    def _other_layout(self, fact: str) -> str:
        return (
            f"{type(self.pipe).__name__} lays out the branches of guidance otherwise than when it was asked: {fact}; "
            "windows with branch can't run where guidance changes within a run"
        )


def shares_of_steps(pipe: Any, call: Mapping[str, Any]) -> tuple[float, ...]:
    """The shares of the noise range at which the steps of a call begin, in their order; no forward is run.

    Raises:
        InputError: the pipeline refuses the call, or its scheduler's timesteps are none of training.
    """
    first_call(pipe, call)
    return tuple(shares_of(pipe.scheduler)[:: getattr(pipe.scheduler, "order", 1)])


def step_at(share: float, shares: Sequence[float]) -> int:
    """The step of a sampler during which a share of the noise range is passed: the last that begins at it or above."""
    return max((step for step, start in enumerate(shares) if start >= share), default=0)


MAX_DIFFERENCE = 0.02  # of the noise range, between scheduler and transformer: twice what bfloat16 rounds
