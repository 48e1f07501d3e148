"""How a pipeline calls its transformer -> the same call, without the pipeline, at any time of any row.

A pipeline prepares what its transformer is given (text, positions, packing, how time is told), but takes no gradients
and only one time a call. So its call is noted once, taken apart into what goes by rows, what is the same for all, the
sample and the time, and put together again for every batch of training. That this is the pipeline's own call is tried
on two prompts before anything is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from surgery.errors import InputError, RefusedError
from surgery.pipelines.conditions import as_argument, conditions_of, is_class_conditional
from surgery.pipelines.guidance import (
    StopSampling,
    nothing_predicted,
    noting_forwards,
    stopping_at_first_step,
)
from surgery.pipelines.noised import call_noised, is_flow
from surgery.pipelines.probes import CLASSES, PROBES
from surgery.pipelines.timestep_convention import TimestepConvention, convention_of
from surgery.pipelines.unguided import unguided
from surgery.tracing.arguments import Container, FlatCall, flatten_call, parameters_of_module, unflatten_call
from surgery.tracing.memo import tensors_in

TRIED_SHARE = 0.37  # of the noise range; any place will do
TOLERANCE = 0.02  # relative: two roads to one prediction differ by rounding, of bfloat16 at most, and not by more

Conditions = Mapping[int, torch.Tensor]  # by the number of the input: a row each of what a prompt becomes


@dataclass(frozen=True, eq=False)
class CallForm:
    """The call of a transformer: `structure` with the `inputs` of one row in it.

    `sample` and `time` are the numbers of those inputs, `by_row` of all others that have an entry a row. `view` says
    which tensor of the output the prediction is, or begins; None where it is neither.
    """

    structure: Container
    inputs: tuple[Any, ...]
    sample: int
    time: int
    by_row: tuple[int, ...]
    convention: TimestepConvention
    view: "View | None" = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of what the transformer is given of one row."""
        return tuple(self.inputs[self.sample].shape[1:])

    @property
    def has_time_by_row(self) -> bool:
        """Whether the rows of one call may stand at several times."""
        value = self.inputs[self.time]
        return isinstance(value, torch.Tensor) and value.ndim > 0 and self.time in self.by_row

    def arguments(
        self, sample: torch.Tensor, shares: torch.Tensor, conditions: Conditions
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the transformer is given for noised samples (B, ...) at these shares (B,) of the noise range."""
        given = list(self.inputs)
        own = self.inputs[self.sample]
        for number, value in enumerate(given):
            if isinstance(value, torch.Tensor):
                given[number] = value.to(sample.device)
        for number, rows in conditions.items():
            given[number] = rows
        given[self.sample] = sample.to(own.dtype)
        given[self.time] = self._times(shares)
        return unflatten_call(self.structure, given)

    def _times(self, shares: torch.Tensor) -> Any:
        own = self.inputs[self.time]
        values = self.convention.scale * shares.double() + self.convention.offset
        if not isinstance(own, torch.Tensor):
            return type(own)(values[0])
        return (values if self.has_time_by_row else values[:1].reshape(own.shape)).to(own.dtype)

    def prediction_of(self, output: Any) -> torch.Tensor:
        """What is learnt of the transformer's output: the part that the pipeline hands its scheduler, if known."""
        if self.view is None:
            return tensors_in(output)[0]
        return self.view.of(output)


@dataclass(frozen=True)
class View:
    """The first `channels` of tensor `number` of an output: the rest are variances, which samplers here leave out."""

    number: int
    channels: int

    def of(self, output: Any) -> torch.Tensor:
        """That part."""
        return tensors_in(output)[self.number][:, : self.channels]


def learn_form(pipe: Any, call: Mapping[str, Any]) -> CallForm:
    """How a pipeline calls its transformer, without guidance, for a call with these arguments.

    Raises:
        InputError: the pipeline refuses the call.
        RefusedError: its call can't be taken apart, or what is put together again predicts something else.
    """
    name = type(pipe).__name__
    convention = convention_of(pipe, call)
    if convention is None:
        raise RefusedError(f"how {name} tells its transformer the time is not known, so it can't be trained here")
    prompts = CLASSES if is_class_conditional(pipe) else PROBES
    one, two = note_call(pipe, prompts[:1], call), note_call(pipe, prompts, call)
    times = [number for number, found in enumerate(one.names) if found == convention.name]
    first = one.inputs[0]
    if one.structure != two.structure or not times or not isinstance(first, torch.Tensor):
        raise RefusedError(
            f"{name} calls its transformer in another form for two prompts than for one; it can't be trained"
        )
    by_row = [
        number
        for number, (single, double) in enumerate(zip(one.inputs, two.inputs, strict=True))
        if isinstance(single, torch.Tensor) and single.ndim and (len(single), len(double)) == (1, 2)
    ]
    form = CallForm(one.structure, one.inputs, 0, times[0], tuple(n for n in by_row if n != 0), convention)
    return _tried(pipe, form, prompts, call)


def note_call(pipe: Any, prompts: Sequence[str], call: Mapping[str, Any]) -> FlatCall:
    """What a pipeline gives its transformer first, for these prompts and without guidance; nothing is run.

    Raises:
        InputError: the pipeline refuses the call.
    """
    names = parameters_of_module(pipe.transformer)
    noted: list[FlatCall] = []

    def note(*args: Any, **kwargs: Any) -> Any:
        noted.append(flatten_call(args, kwargs, names))
        return nothing_predicted({**dict(zip(names, args, strict=False)), **kwargs})

    generators = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    given = as_argument(pipe, conditions_of(pipe, prompts))
    with noting_forwards(pipe, note), stopping_at_first_step(pipe), unguided(pipe, call) as arguments:
        arguments["num_inference_steps"] = 1
        try:
            pipe(**given, generator=generators, output_type="latent", **arguments)
        except StopSampling:
            pass
        except (ValueError, TypeError, AttributeError, LookupError) as error:  # as pipelines answer to odd values
            raise InputError(f"{type(pipe).__name__} refuses the call: {error}") from error
    return noted[-1]


def conditions_of_call(form: CallForm, noted: FlatCall) -> dict[int, torch.Tensor]:
    """What goes by rows in a noted call, but for the sample and the time."""
    return {number: noted.inputs[number] for number in form.by_row if number != form.time}


def noised_rows(
    scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean samples (B, ...) noised, each at its own share (B,) of the noise range; and where exactly that is.

    The equations are those of `pipelines.noised.add_noise`; schedulers with whole timesteps round down.
    """
    steps = scheduler.config.num_train_timesteps
    if is_flow(scheduler):
        weight = shares.double().reshape(-1, *[1] * (clean.ndim - 1))
        return ((1 - weight).to(clean) * clean + weight.to(clean) * noise), shares
    from diffusers import DDPMScheduler

    timesteps = (shares * steps).long().clamp(max=steps - 1)
    noised = DDPMScheduler.from_config(scheduler.config).add_noise(clean, noise, timesteps)
    return noised, timesteps.double() / steps


@torch.no_grad()
def _tried(pipe: Any, form: CallForm, prompts: Sequence[str], call: Mapping[str, Any]) -> CallForm:
    """The form with its view of the output, if it predicts what the pipeline predicts.

    Raises:
        RefusedError: it does not.
    """
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, *form.sample_shape, generator=generator) for _ in range(2))
    called = call_noised(pipe, clean, noise, TRIED_SHARE, prompts, call)
    noised, shares = noised_rows(pipe.scheduler, clean, noise, torch.full((2,), TRIED_SHARE, dtype=torch.float64))
    conditions = conditions_of_call(form, note_call(pipe, prompts, call))
    args, kwargs = form.arguments(noised.to(pipe.transformer.device), shares, conditions)
    output = pipe.transformer(*args, **kwargs)
    own, found = tensors_in(called.call.output), tensors_in(output)
    is_same = len(own) == len(found) and all(map(_is_near, found, own))
    if not is_same:
        raise RefusedError(
            f"{type(pipe).__name__} gives its transformer something that changes with time beside "
            f"{form.convention.name}; it can't be trained here"
        )
    return CallForm(
        form.structure, form.inputs, form.sample, form.time, form.by_row, form.convention, _view(called, own)
    )


def _view(called: Any, own: Sequence[torch.Tensor]) -> View | None:
    """Where in the output the prediction is, if it is all of a tensor, or its first channels."""
    if called.view is None:
        return None
    whole, part = own[called.view], called.prediction
    view = View(called.view, part.shape[1])
    seen = whole[:, : view.channels]
    return view if seen.shape == part.shape and torch.equal(seen, part) else None


def _is_near(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    one, other = one.float(), other.float()
    return bool((one - other).norm() <= TOLERANCE * other.norm())
