"""A student and a teacher on one batch -> the losses of healing, by their names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from surgery.errors import RefusedError
from surgery.pipelines.noised import is_flow
from surgery.training.call_form import CallForm
from surgery.training.features import Match, feature_loss, outputs_of
from surgery.training.noised_batches import NoisedBatch

OUTPUT, FEATURES, DENOISING = "output", "features", "denoising"


@dataclass(frozen=True)
class HealingLoss:
    """The losses whose weights are not 0.

    * output: the mean square of the difference to the teacher's prediction;
    * features: how far the ends of surviving blocks are from the teacher's (see `features`), relative;
    * denoising: the mean square of the difference to what a model is trained to predict, of real pictures.
    """

    teacher: nn.Module
    student: nn.Module
    matches: Sequence[Match]
    form: CallForm
    scheduler: Any
    weights: Mapping[str, float]
    sigmas: float | None

    def __call__(self, model: Any, batch: NoisedBatch) -> dict[str, torch.Tensor]:
        """The losses of `model`, which is the student, maybe wrapped."""
        wanted = {name for name, weight in self.weights.items() if weight}
        matches = self.matches if FEATURES in wanted else ()
        found: dict[str, torch.Tensor] = {}
        with outputs_of([_block(self.student, match.stack, match.place) for match in matches]) as own:
            prediction = self.form.prediction_of(model(*batch.args, **batch.kwargs)).float()
        if wanted & {OUTPUT, FEATURES}:
            with outputs_of([_block(self.teacher, match.stack, match.original) for match in matches]) as others:
                expected = self._taught(batch)
            found[OUTPUT] = F.mse_loss(prediction, expected.float())
            if matches:
                found[FEATURES] = feature_loss(own, others, self.sigmas)
        if DENOISING in wanted:
            found[DENOISING] = F.mse_loss(prediction, truth_of(self.scheduler, batch).float())
        return found

    @torch.no_grad()
    def _taught(self, batch: NoisedBatch) -> torch.Tensor:
        return self.form.prediction_of(self.teacher(*batch.args, **batch.kwargs))


def _block(model: nn.Module, stack: str, place: int) -> nn.Module:
    return model.get_submodule(f"{stack}.{place}")


def truth_of(scheduler: Any, batch: NoisedBatch) -> torch.Tensor:
    """What a model with this scheduler is trained to predict.

    Raises:
        RefusedError: the scheduler names a kind of prediction that is not known.
    """
    if is_flow(scheduler):
        return batch.noise - batch.clean
    from diffusers import DDPMScheduler

    kind = scheduler.config.get("prediction_type", "epsilon")
    own: Any = DDPMScheduler.from_config(scheduler.config)
    if kind == "epsilon":
        return batch.noise
    if kind == "sample":
        return batch.clean
    if kind == "v_prediction":
        timesteps = (batch.shares * own.config.num_train_timesteps).round().long()
        return own.get_velocity(batch.clean, batch.noise, timesteps)
    raise RefusedError(f"{type(scheduler).__name__} predicts {kind}, which is not known; leave --denoising out")
