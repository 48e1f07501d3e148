"""The denoising error: how far a variant's predictions are from the baseline's at the same (x_t, t, prompt).

No picture is drawn: the baseline's own pictures (or real ones) are noised, and each model predicts once from the same
noised latents. With y the baseline's prediction and y' the variant's, the error of a prompt at a time is
|y' - y| / |y|; against the truth it is |y' - z| / |z|, z what the model was trained to predict.

A variant with windows runs, in a bin, what it runs at the bin's middle. Where its windows go by branches it is measured
on those that they change (the unconditional one with the empty prompt), where on both, by the mean of the two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.errors import InputError, RefusedError
from surgery.graph.windowed_pipeline import windows_of
from surgery.pipelines.conditions import is_class_conditional
from surgery.pipelines.guidance import CONDITIONAL, UNCONDITIONAL
from surgery.pipelines.noised import is_flow, pack_latents, predict_noised
from surgery.pipelines.sampler_clock import shares_of_steps, step_at
from surgery.pipelines.standing import standing_at
from surgery.spec.operations import BRANCHES

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DenoisingErrors:
    """Of one model, by prompt and timestep bin (N, bins), each relative: to the baseline's prediction, and to
    the truth, where pictures are real.
    """

    to_baseline: Array
    to_truth: Array | None


def denoising_errors(
    pipes: Mapping[str, Any],
    baseline: Any,
    clean: torch.Tensor,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    bins: int,
    batch_size: int,
    call: Mapping[str, Any],
    has_truth: bool = False,
    on_batch: Callable[[int], object] = lambda count: None,  # noqa: ARG005  (nobody is told)
) -> dict[str, DenoisingErrors]:
    """The errors of several pipelines that share all but their transformers, in the middle of each timestep bin.

    `clean` are latents (N, channels, height, width), one a prompt, of real pictures where `has_truth`; `seeds` are
    those of their noise. `on_batch` is told how many predictions each batch has finished.

    Raises:
        InputError: prompts, latents and seeds are not equally many, or the pipeline refuses the call.
        RefusedError: how the pipeline packs its latents is not known.
    """
    if not len(clean) == len(prompts) == len(seeds):
        raise InputError(
            f"there are {len(clean)} latents, {len(prompts)} prompts and {len(seeds)} seeds; give one each"
        )
    captions = {CONDITIONAL: list(prompts), UNCONDITIONAL: [""] * len(prompts)}
    branches = {name: branches_of(pipe) for name, pipe in pipes.items()}
    steps = _steps_of_bins(pipes, baseline, bins, call)
    shape = (len(prompts), bins)
    errors = {name: DenoisingErrors(np.zeros(shape), np.zeros(shape) if has_truth else None) for name in pipes}
    for number in range(bins):
        share = (number + 0.5) / bins
        for start in range(0, len(prompts), batch_size):
            rows = slice(start, start + batch_size)
            noise = torch.cat(
                [_noise_like(latents, seed, number) for latents, seed in zip(clean[rows], seeds[rows], strict=True)]
            )
            for branch in dict.fromkeys(branch for measured in branches.values() for branch in measured):
                given = (clean[rows], noise, share, captions[branch][rows], call)
                expected = predict_noised(baseline, *given)
                truth = _truth(baseline, clean[rows], noise, share, expected) if has_truth else None
                for name, pipe in pipes.items():
                    if branch not in branches[name]:
                        continue
                    with standing_at(timestep=share, step=steps[number], branch=branch):
                        found = expected if pipe is baseline else predict_noised(pipe, *given)
                    weight = 1 / len(branches[name])
                    errors[name].to_baseline[rows, number] += weight * _relative(found, expected)
                    to_truth = errors[name].to_truth
                    if truth is not None and to_truth is not None:
                        to_truth[rows, number] += weight * _relative(found, truth)
                    if branch == branches[name][0]:
                        on_batch(len(noise))
    return errors


def branches_of(pipe: Any) -> tuple[str, ...]:
    """The branches of guidance on which a pipeline is measured: those in which its windows change something.

    Raises:
        RefusedError: it is class-conditional, and its unconditional branch is no prompt.
    """
    plan = windows_of(pipe)
    if plan is None or not plan.goes_by_branches:
        return (CONDITIONAL,)
    changed = {atom.branch for atom, within in plan.atoms if not within.is_identity}
    found = tuple(branch for branch in BRANCHES if branch in changed)
    if UNCONDITIONAL in found and is_class_conditional(pipe):
        raise RefusedError(f"the unconditional branch of {type(pipe).__name__} has no prompt to measure it with")
    return found or (CONDITIONAL,)


def _steps_of_bins(pipes: Mapping[str, Any], baseline: Any, bins: int, call: Mapping[str, Any]) -> list[int]:
    """The step of the call's sampler in the middle of each bin; 0 where no window asks for it."""
    plans = [windows_of(pipe) for pipe in pipes.values()]
    if not any(plan is not None and plan.goes_by_steps for plan in plans):
        return [0] * bins
    shares = shares_of_steps(baseline, call)
    return [step_at((number + 0.5) / bins, shares) for number in range(bins)]


def _noise_like(latents: torch.Tensor, seed: int, number: int) -> torch.Tensor:
    """Noise (1, ...) of its own for each prompt and bin."""
    generator = torch.Generator().manual_seed(2**16 * (number + 1) + seed)
    return torch.randn(1, *latents.shape, generator=generator)


def _truth(pipe: Any, clean: torch.Tensor, noise: torch.Tensor, share: float, prediction: torch.Tensor) -> torch.Tensor:
    """What the transformer was trained to predict, in the shape of its prediction.

    Raises:
        InputError: the scheduler names a kind of prediction that is not known.
    """
    kind = pipe.scheduler.config.get("prediction_type", "flow_prediction")
    if is_flow(pipe.scheduler):
        return pack_latents(pipe, noise - clean, prediction).to(prediction.device)
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler.from_config(pipe.scheduler.config)
    steps = scheduler.config.num_train_timesteps
    timestep = torch.full((len(clean),), min(int(share * steps), steps - 1))
    truths = {"epsilon": lambda: noise, "sample": lambda: clean}
    truths["v_prediction"] = lambda: scheduler.get_velocity(clean, noise, timestep)
    if kind not in truths:
        raise InputError(
            f"{type(pipe.scheduler).__name__} predicts {kind}, which is not known; measure without --pictures"
        )
    return pack_latents(pipe, truths[kind](), prediction).to(prediction.device)


def _relative(found: torch.Tensor, expected: torch.Tensor) -> Array:
    """|found - expected| / |expected| of each row, in float64."""
    found, expected = found.double().flatten(1), expected.double().flatten(1)
    ratio: Array = ((found - expected).norm(dim=1) / expected.norm(dim=1)).cpu().numpy()
    return ratio
