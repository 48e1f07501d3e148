"""What a scheduler is given at a step -> the clean sample that the model predicts there.

Every sampler's state is x_t = a x_0 + s e. Which a and s it has at a timestep, its scheduler is asked itself: it adds
noise to zeros and ones. So noise levels of any parametrisation (variance preserving, exploding, flow) are read alike.
"""

from dataclasses import dataclass
from typing import Any

import torch

from surgery.errors import InputError, RefusedError
from surgery.pipelines.noised import is_flow

FLOW = "flow_prediction"
MIN_SIGNAL = 1e-4  # of a: below it there is nothing to divide by


@dataclass(frozen=True)
class NoiseLevel:
    """x_t = signal x_0 + noise e."""

    signal: float
    noise: float


def noise_level(scheduler: Any, timestep: Any) -> NoiseLevel:
    """What a scheduler's state holds at one of its timesteps.

    Raises:
        RefusedError: the scheduler does not say how it adds noise.
    """
    time = torch.as_tensor(timestep).detach().reshape(-1)[:1].to(scheduler.timesteps.device)
    zero, one = (torch.full((1, 1, 1, 1), value, dtype=torch.float64, device=time.device) for value in (0.0, 1.0))
    try:
        if hasattr(scheduler, "scale_noise"):
            signal, noise = scheduler.scale_noise(one, time, zero), scheduler.scale_noise(zero, time, one)
        else:
            signal, noise = scheduler.add_noise(one, zero, time), scheduler.add_noise(zero, one, time)
    except (AttributeError, TypeError, ValueError, LookupError, RuntimeError) as error:
        raise RefusedError(
            f"{type(scheduler).__name__} does not say how much noise there is at {float(time):g}: {error}"
        ) from None
    return NoiseLevel(float(signal), float(noise))


def predict_clean(scheduler: Any, level: NoiseLevel, sample: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """The clean sample by what the model predicts from `sample`, which is at this level; after guidance.

    Raises:
        RefusedError: the scheduler names a kind of prediction that is not known, or none can be told at pure noise.
    """
    signal, noise = level.signal, level.noise
    kind = kind_of_prediction(scheduler)
    sample, prediction = sample.float(), first_channels(sample, prediction).float()
    if kind == "epsilon":
        if signal < MIN_SIGNAL:
            raise RefusedError(
                f"{type(scheduler).__name__} begins at pure noise, where a predicted noise says nothing of the "
                "picture; take a scheduler whose predictions are velocities, or whose first timestep is later"
            )
        return (sample - noise * prediction) / signal
    if kind == "sample":
        return prediction
    if kind == "v_prediction":  # v = a' e - s' x_0 with a'^2 + s'^2 = 1
        length = (signal**2 + noise**2) ** 0.5
        return (signal * sample / length - noise * prediction) / length
    return (sample - noise * prediction) / (signal + noise)  # v = e - x_0


def kind_of_prediction(scheduler: Any) -> str:
    """`epsilon`, `sample`, `v_prediction` or `flow_prediction`.

    Raises:
        RefusedError: it is another.
    """
    kind = scheduler.config.get("prediction_type")
    if hasattr(scheduler, "precondition_outputs"):
        raise RefusedError(
            f"{type(scheduler).__name__} scales what the model predicts in a way of its own (EDM), from which the "
            "clean picture is not told here; take another scheduler"
        )
    if kind is None and is_flow(scheduler):
        return FLOW
    if kind not in ("epsilon", "sample", "v_prediction", FLOW):
        raise RefusedError(
            f"{type(scheduler).__name__} predicts {kind}, from which no clean picture can be told; take a scheduler "
            "that predicts epsilon, sample, v_prediction or a flow"
        )
    return str(kind)


def first_channels(sample: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """The prediction without the variance that some models predict behind it.

    Raises:
        InputError: the prediction has another shape than the sample.
    """
    if prediction.ndim > 1 and prediction.shape[1] == 2 * sample.shape[1]:
        prediction = prediction[:, : sample.shape[1]]
    if prediction.shape != sample.shape:
        raise InputError(
            f"the scheduler is given a prediction of {tuple(prediction.shape)} for a sample of {tuple(sample.shape)}"
        )
    return prediction
