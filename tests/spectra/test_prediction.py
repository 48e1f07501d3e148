"""The clean picture is told from what a scheduler is given, whatever it predicts and however it counts noise."""

import diffusers
import pytest
import torch

from surgery.errors import InputError, RefusedError
from surgery.spectra.prediction import first_channels, noise_level, predict_clean

KINDS = ("epsilon", "v_prediction", "sample", "flow_prediction")
NO_SAMPLE = {"HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler", "EulerAncestralDiscreteScheduler"}
VARIANCE = ["DDPM", "DDIM", "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "PNDM"]
EXPLODING = ["EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete"]
FLOWS = ["FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete"]
CASES = [
    *((f"{name}Scheduler", kind) for name in VARIANCE + EXPLODING for kind in KINDS[:3]),
    *((f"{name}Scheduler", "flow_prediction") for name in FLOWS),
    ("DPMSolverMultistepScheduler", "flow_prediction"),
    ("UniPCMultistepScheduler", "flow_prediction"),
]


def make_scheduler(name, kind):
    options = {} if name.startswith("FlowMatch") else {"prediction_type": kind}
    if kind == "flow_prediction" and options:
        options["use_flow_sigmas"] = True
    if name.startswith("DD"):
        options["clip_sample"] = False
    scheduler = getattr(diffusers, name)(**options)
    scheduler.set_timesteps(5)
    return scheduler


def ideal(kind, level, state, clean):
    """What a model that knows the clean sample predicts."""
    noise = (state - level.signal * clean) / level.noise
    length = (level.signal**2 + level.noise**2) ** 0.5
    return {
        "epsilon": noise,
        "sample": clean,
        "v_prediction": (level.signal * noise - level.noise * clean) / length,
        "flow_prediction": noise - clean,
    }[kind]


@pytest.mark.parametrize(
    ("name", "kind"), [case for case in CASES if not (case[1] == "sample" and case[0] in NO_SAMPLE)]
)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_knows_the_picture_is_read_so_at_every_step(name, kind):
    """And what the scheduler itself takes for the picture, where it says so, is what is read."""
    scheduler = make_scheduler(name, kind)
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 4, 8, 8, generator=generator) * 2 - 1
    level = noise_level(scheduler, scheduler.timesteps[0])
    state = level.signal * clean + level.noise * torch.randn(clean.shape, generator=generator)
    for timestep in scheduler.timesteps:
        level = noise_level(scheduler, timestep)
        prediction = ideal(kind, level, state, clean)
        found = predict_clean(scheduler, level, state, prediction)
        torch.testing.assert_close(found, clean, atol=2e-3, rtol=0)  # a noise of 157 loses so many digits of float32
        answer = scheduler.step(prediction, timestep, state)
        own = getattr(answer, "pred_original_sample", None)
        if own is not None:
            torch.testing.assert_close(found, own, atol=2e-3, rtol=0)
        state = answer.prev_sample


def test_a_prediction_is_read_by_its_scheduler_and_not_by_another_kind():
    """The saboteur: what is a noise is no picture when taken for a velocity."""
    scheduler = make_scheduler("DDIMScheduler", "epsilon")
    level = noise_level(scheduler, scheduler.timesteps[2])
    clean = torch.ones(1, 4, 8, 8)
    state = level.signal * clean + level.noise * torch.full_like(clean, 0.5)
    wrong = predict_clean(make_scheduler("DDIMScheduler", "v_prediction"), level, state, torch.full_like(clean, 0.5))
    assert (wrong - clean).abs().max() > 0.1


def test_a_variance_that_is_predicted_too_is_left_out():
    sample, prediction = torch.zeros(2, 4, 8, 8), torch.arange(8.0)[None, :, None, None].expand(2, 8, 8, 8)
    assert first_channels(sample, prediction)[0, :, 0, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"a prediction of \(2, 5, 8, 8\) for a sample of \(2, 4, 8, 8\)"):
        first_channels(sample, torch.zeros(2, 5, 8, 8))


def test_a_scheduler_that_scales_predictions_in_its_own_way_is_refused():
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(5)
    level = noise_level(scheduler, scheduler.timesteps[0])
    with pytest.raises(RefusedError, match="EDMEulerScheduler scales what the model predicts in a way of its own"):
        predict_clean(scheduler, level, torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8))


def test_an_unknown_prediction_and_one_at_pure_noise_are_refused():
    scheduler = make_scheduler("DDIMScheduler", "epsilon")
    zeros = torch.zeros(1, 4, 8, 8)
    with pytest.raises(RefusedError, match="begins at pure noise, where a predicted noise says nothing of the picture"):
        predict_clean(scheduler, type(noise_level(scheduler, 0))(0.0, 1.0), zeros, zeros)
    scheduler.register_to_config(prediction_type="score")
    with pytest.raises(RefusedError, match="DDIMScheduler predicts score, from which no clean picture can be told"):
        predict_clean(scheduler, noise_level(scheduler, 0), zeros, zeros)
