"""A pipeline and a noised picture -> what its transformer predicts there, as in training.

The pipeline itself prepares everything that its transformer is given (text, positions, packing); its scheduler is made
to visit this one timestep, the noised picture takes the place of the pipeline's noise, and the call ends at its first
step.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from surgery.diffusers_internals import packings_by_pipeline
from surgery.errors import InputError, RefusedError
from surgery.pipelines.conditions import as_argument, conditions_of
from surgery.pipelines.guidance import StopSampling, transformers_of
from surgery.pipelines.noised_call import CallNotes, NoisedCall
from surgery.pipelines.replaced import replaced
from surgery.pipelines.unguided import unguided
from surgery.tracing.arguments import parameters_of_module

VIDEO_NDIM = 5  # of latents (batch, channels, frames, height, width)


def predict_noised(
    pipe: Any,
    clean: torch.Tensor,
    noise: torch.Tensor,
    share: float,
    captions: Sequence[str],
    call: Mapping[str, Any],
    *,
    instead: Callable[..., Any] | None = None,
) -> torch.Tensor:
    """What a pipeline hands its scheduler at one share of the noise range, for noised latents (batch, ...), unguided.

    Flow-matching models get x_t = (1 - t) x_0 + t e; others x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e with their
    scheduler's a_t (DDPM, arXiv 2006.11239, eq. 4). `instead` is called in place of the transformer's forward.

    Raises:
        RefusedError: how the pipeline packs its latents is not known.
        InputError: the pipeline refuses the call.
    """
    return call_noised(pipe, clean, noise, share, captions, call, instead=instead).prediction


def call_noised(
    pipe: Any,
    clean: torch.Tensor,
    noise: torch.Tensor,
    share: float,
    captions: Sequence[str],
    call: Mapping[str, Any],
    *,
    instead: Callable[..., Any] | None = None,
) -> NoisedCall:
    """The same, with the call of the transformer that it comes from."""
    height, width = picture_size(pipe, call)
    timestep, noised = add_noise(pipe.scheduler, clean, noise, share)
    known = inspect.signature(type(pipe).__call__).parameters
    size = {name: value for name, value in (("height", height), ("width", width)) if name in known}
    generators = [torch.Generator().manual_seed(number) for number in range(len(captions))]
    given = as_argument(pipe, conditions_of(pipe, captions))
    predictions: list[torch.Tensor] = []
    notes = CallNotes()
    name = parameters_of_module(pipe.transformer)[0]
    with ExitStack() as stack:
        arguments = {**stack.enter_context(unguided(pipe, call)), "num_inference_steps": 1, **size}
        stack.enter_context(replaced(pipe.scheduler, "step", _keep_and_stop(pipe.scheduler.step, predictions)))
        stack.enter_context(replaced(pipe.scheduler, "set_timesteps", _visit(pipe.scheduler, timestep)))
        for model in transformers_of(pipe):  # the pipeline runs the one that is for this timestep
            if instead is not None:
                stack.enter_context(replaced(model, "forward", instead))
            hook = model.register_forward_pre_hook(_put(pipe, name, noised), with_kwargs=True, prepend=True)
            stack.callback(hook.remove)
            stack.callback(model.register_forward_pre_hook(notes.before, with_kwargs=True).remove)
            stack.callback(model.register_forward_hook(notes.after, with_kwargs=True).remove)
        try:
            pipe(**given, generator=generators, output_type="latent", **arguments)
        except StopSampling:
            pass
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise InputError(f"{type(pipe).__name__} refuses the call: {error}") from error
    last = notes.calls[-1]
    is_alone = len(notes.calls) == 1 and last.keeps_inputs
    return NoisedCall(last, predictions[0], last.find_view(predictions[0]), is_alone)


def picture_size(pipe: Any, call: Mapping[str, Any]) -> tuple[int, int]:
    """The height and width in pixels: the call's, or the pipeline's own."""
    own = getattr(pipe.transformer.config, "sample_size", None) or getattr(pipe, "default_sample_size", 0)
    size = own * getattr(pipe, "vae_scale_factor", 8) if isinstance(own, int) else 0
    height, width = call.get("height", size), call.get("width", size)
    if not height or not width:
        raise InputError(f"{type(pipe).__name__} does not say how large its pictures are; give --height and --width")
    return int(height), int(width)


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler's noised samples are (1 - t) x_0 + t e."""
    return hasattr(scheduler, "scale_noise") or scheduler.config.get("prediction_type") == "flow_prediction"


def add_noise(
    scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The timestep at a share of the noise range, and the noised sample there."""
    steps = scheduler.config.num_train_timesteps
    if is_flow(scheduler):
        return torch.tensor([share * steps]), (1 - share) * clean + share * noise
    from diffusers import DDPMScheduler

    timestep = torch.tensor([min(int(share * steps), steps - 1)])
    return timestep, DDPMScheduler.from_config(scheduler.config).add_noise(clean, noise, timestep)


def _visit(scheduler: Any, timestep: torch.Tensor) -> Callable[..., None]:
    """A `set_timesteps` after which the scheduler has one timestep."""
    set_timesteps = scheduler.set_timesteps

    @functools.wraps(set_timesteps)  # pipelines look at its signature
    def visit(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        scheduler.timesteps = timestep.to(scheduler.timesteps.device)
        scheduler.num_inference_steps = 1

    return visit


def _keep_and_stop(take_step: Callable[..., Any], predictions: list[torch.Tensor]) -> Callable[..., None]:
    """A `step` that keeps the prediction that it is given, and ends the call."""

    @functools.wraps(take_step)  # pipelines look at its signature
    def stop(model_output: torch.Tensor, *_args: Any, **_kwargs: Any) -> None:
        predictions.append(model_output)
        raise StopSampling

    return stop


def _put(pipe: Any, name: str, noised: torch.Tensor) -> Callable[..., Any]:
    """A hook that gives the transformer a noised picture instead of what its pipeline gives."""

    def put(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ARG001  (torch's)
        given = args[0] if args else kwargs[name]
        value = pack_latents(pipe, noised, given).to(given)
        return ((value, *args[1:]), kwargs) if args else (args, {**kwargs, name: value})

    return put


def pack_latents(pipe: Any, latents: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Latents (batch, channels, height, width) in the shape that the transformer is given: as they are, as a video of
    one frame, or by the pipeline's own packing.

    Raises:
        RefusedError: the pipeline packs its latents in a way that is not known.
    """
    frames_first, channels_first = latents.unsqueeze(1), latents.unsqueeze(2)
    for shaped in (latents, channels_first, frames_first, *packings_by_pipeline(pipe, latents)):
        if given.shape == shaped.shape:
            return shaped
    frames = "; give --call num_frames=1, for a video of one" if given.ndim == VIDEO_NDIM else ""
    raise RefusedError(
        f"{type(pipe).__name__} gives its transformer {tuple(given.shape)}, and a picture's latents are "
        f"{tuple(latents.shape)}; how they are packed is not known{frames}"
    )
