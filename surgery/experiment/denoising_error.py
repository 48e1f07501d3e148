"""The denoising error: how far a variant's predictions are from the baseline's at the same (x_t, t, prompt).

No picture is drawn: the baseline's own pictures (or real ones) are noised, and each model predicts once from the same
noised latents. With y the baseline's prediction and y' the variant's, the error of a prompt at a time is
|y' - y| / |y|; against the truth it is |y' - z| / |z|, z what the model was trained to predict.

A variant with windows runs, in a bin, what it runs at the bin's middle. Where its windows go by branches it is measured
on those that they change (the unconditional one with the empty prompt), where on both, by the mean of the two.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.errors import InputError, RefusedError
from surgery.experiment.bench import Bench
from surgery.experiment.engines import Tell, tell_nobody
from surgery.experiment.predictors import AskedPrediction, Predictors
from surgery.experiment.rows import OwnModelRow
from surgery.graph.shared_forward import DEFAULT_MEMORY
from surgery.pipelines.conditions import is_class_conditional
from surgery.pipelines.guidance import CONDITIONAL, UNCONDITIONAL
from surgery.pipelines.noised import call_noised, is_flow, pack_latents
from surgery.pipelines.sampler_clock import shares_of_steps, step_at
from surgery.pipelines.shared_text import text_encoded_once
from surgery.pipelines.standing import Standing
from surgery.plan.windowed import WindowedPlan
from surgery.spec.operations import BRANCHES

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DenoisingErrors:
    """Of one model, by prompt and timestep bin (N, bins), each relative: to the baseline's prediction, and to
    the truth, where pictures are real.
    """

    to_baseline: Array
    to_truth: Array | None


@dataclass(frozen=True, eq=False)
class ErrorUnit:
    """The errors of rows in the middle of one timestep bin on one batch of prompts: one walk for all rows.

    `first` is the number of the first prompt, `clean` its latents and those of its neighbours (B, channels, height,
    width), `step` that of the sampler in the middle of the bin; `branches` are those that each row is measured on.
    """

    number: int
    share: float
    step: int
    first: int
    clean: torch.Tensor
    seeds: Sequence[int]
    prompts: Sequence[str]
    branches: Mapping[str, Sequence[str]]
    has_truth: bool

    @property
    def label(self) -> str:
        """What people call it."""
        return f"denoising errors at {self.share:.2f}, prompts {self.first} to {self.first + len(self.prompts) - 1}"

    @property
    def size(self) -> int:
        """How many predictions it makes, but for those of second branches."""
        return len(self.prompts) * len(self.branches)

    @property
    def place(self) -> tuple[slice, slice]:
        """Of its errors among all, by prompt and bin."""
        return slice(self.first, self.first + len(self.prompts)), slice(self.number, self.number + 1)

    def run(self, bench: Bench, tell: Tell) -> dict[str, DenoisingErrors]:
        """Its errors (B, 1) by row."""
        bench.let_go_but(tuple(self.branches))
        with text_encoded_once([bench.run.pipe], bench.run.texts):
            return self.measure(bench.predictors(tuple(self.branches)), bench.run.call, tell)

    def measure(self, predictors: Predictors, call: Mapping[str, Any], tell: Tell) -> dict[str, DenoisingErrors]:
        """The same of these predictors, whose baseline is called with the arguments `call`."""
        noise = torch.cat(
            [_noise_like(latents, seed, self.number) for latents, seed in zip(self.clean, self.seeds, strict=True)]
        )
        errors = _no_errors(self.branches, (len(self.prompts), 1), self.has_truth)
        for branch in dict.fromkeys(branch for measured in self.branches.values() for branch in measured):
            captions = list(self.prompts) if branch == CONDITIONAL else [""] * len(self.prompts)
            given = (self.clean, noise, self.share, captions, call)
            expected = call_noised(predictors.baseline, *given)
            truth = None
            if self.has_truth:
                truth = _truth(predictors.baseline, self.clean, noise, self.share, expected.prediction)
            keep = _Keeper(errors, self.branches, branch, expected.prediction, truth, tell)
            measured = [name for name in self.branches if branch in self.branches[name]]
            at = AskedPrediction(given, Standing(self.share, self.step, branch), expected)
            predictors.predict(measured, at, keep)
        return errors


RunUnits = Callable[[Sequence[ErrorUnit]], Iterator[tuple[int, dict[str, DenoisingErrors]]]]


def denoising_errors(
    rows: Mapping[str, Any],
    baseline: Any,
    clean: torch.Tensor,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    bins: int,
    batch_size: int,
    call: Mapping[str, Any],
    has_truth: bool = False,
    memory: int = DEFAULT_MEMORY,
    tell: Tell = tell_nobody,
    run_units: RunUnits | None = None,
) -> dict[str, DenoisingErrors]:
    """The errors of several rows in the middle of each timestep bin.

    A row is a pipeline that shares all but its transformer with the `baseline`, or a planned spec for the baseline's:
    what the variants of planned specs have in common runs once (see `graph/shared_forward.py`), with at most `memory`
    bytes of states that wait. A row that loads a model of its own is measured by itself, so that one is held at a time.

    `clean` are latents (N, channels, height, width), one a prompt, of real pictures where `has_truth`; `seeds` are
    those of their noise. `run_units` does the work, in any order; without it, it is done here, and `tell` is told.

    Raises:
        InputError: prompts, latents and seeds are not equally many, or the pipeline refuses the call.
        RefusedError: how the pipeline packs its latents is not known, or a plan can't be done on the model's graph.
    """
    if not len(clean) == len(prompts) == len(seeds):
        raise InputError(
            f"there are {len(clean)} latents, {len(prompts)} prompts and {len(seeds)} seeds; give one each"
        )
    predictors = Predictors(rows, baseline, memory)
    branches = {name: branches_of(predictors.windows(name), baseline) for name in rows}
    steps = _steps_of_bins([predictors.windows(name) for name in rows], baseline, bins, call)
    batches = []
    for start in range(0, len(prompts), batch_size):
        own = slice(start, start + batch_size)
        batches.append((start, clean[own].clone(), seeds[own], prompts[own]))  # a view would be sent with all of it
    units = [
        ErrorUnit(number, (number + 0.5) / bins, steps[number], *batch, measured, has_truth)
        for measured in ({name: branches[name] for name in names} for names in _walks(rows))
        for number, batch in itertools.product(range(bins), batches)
    ]
    here = (unit.measure(predictors, call, tell) for unit in units)
    errors = _no_errors(rows, (len(prompts), bins), has_truth)
    for index, found in enumerate(here) if run_units is None else run_units(units):
        for name, part in found.items():
            errors[name].to_baseline[units[index].place] = part.to_baseline
            if has_truth:
                errors[name].to_truth[units[index].place] = part.to_truth  # type: ignore[index]  # as has_truth says
    return errors


def _walks(rows: Mapping[str, Any]) -> list[list[str]]:
    """The names of the rows that are measured together: those that share the baseline's weights, and each other one."""
    shared = [name for name, row in rows.items() if not isinstance(row, OwnModelRow)]
    return [*([shared] if shared else []), *([name] for name in rows if name not in shared)]


def _no_errors(names: Iterable[str], shape: tuple[int, int], has_truth: bool) -> dict[str, DenoisingErrors]:
    """Zeros, to be filled."""
    return {name: DenoisingErrors(np.zeros(shape), np.zeros(shape) if has_truth else None) for name in names}


@dataclass(frozen=True)
class _Keeper:
    """Adds up the errors (B, 1) of predictions of one branch."""

    errors: Mapping[str, DenoisingErrors]
    branches: Mapping[str, Sequence[str]]
    branch: str
    expected: torch.Tensor
    truth: torch.Tensor | None
    tell: Tell

    def __call__(self, name: str, found: torch.Tensor) -> None:
        weight = 1 / len(self.branches[name])
        errors = self.errors[name]
        errors.to_baseline[:, 0] += weight * _relative(found, self.expected)
        if self.truth is not None and errors.to_truth is not None:
            errors.to_truth[:, 0] += weight * _relative(found, self.truth)
        if self.branch == self.branches[name][0]:
            self.tell(len(found), name)


def branches_of(windows: WindowedPlan | None, baseline: Any) -> tuple[str, ...]:
    """The branches of guidance on which a row is measured: those in which its windows change something.

    Raises:
        RefusedError: the pipeline is class-conditional, and its unconditional branch is no prompt.
    """
    if windows is None or not windows.goes_by_branches:
        return (CONDITIONAL,)
    changed = {atom.branch for atom, within in windows.atoms if not within.is_identity}
    found = tuple(branch for branch in BRANCHES if branch in changed)
    if UNCONDITIONAL in found and is_class_conditional(baseline):
        raise RefusedError(f"the unconditional branch of {type(baseline).__name__} has no prompt to measure it with")
    return found or (CONDITIONAL,)


def _steps_of_bins(
    windows: Sequence[WindowedPlan | None], baseline: Any, bins: int, call: Mapping[str, Any]
) -> list[int]:
    """The step of the call's sampler in the middle of each bin; 0 where no window asks for it."""
    if not any(plan is not None and plan.goes_by_steps for plan in windows):
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
