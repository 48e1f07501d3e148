"""A plan -> the denoising error that is left after a few steps of healing: an objective that a search can be given."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from surgery.graph.apply import apply
from surgery.pipelines.shared_text import text_encoded_once
from surgery.plan.plan import Plan
from surgery.progress import quietly
from surgery.training.accelerator import open_accelerator
from surgery.training.call_form import learn_form
from surgery.training.healing_data import Maker
from surgery.training.healing_loss import OUTPUT, HealingLoss
from surgery.training.held_out import HeldOut, prepare_held_out
from surgery.training.loop import train_
from surgery.training.noised_batches import NoisedBatches
from surgery.training.settings import TrainingSettings
from surgery.training.shelf import Shelf

CHUNK = 16  # prompts drawn at once


@dataclass(frozen=True)
class ErrorAfter:
    """Called with a plan for the transformer of `pipe`, the error on held-out prompts after healing by `settings`.

    Every plan learns from the same batches, so that errors differ by their plans alone. What is trained is a variant of
    a copy of the transformer: the pipeline stays as it is.
    """

    pipe: Any
    batches: NoisedBatches
    held_out: HeldOut
    settings: TrainingSettings

    def __call__(self, plan: Plan) -> float:
        """Heal a variant, and measure it.

        Raises:
            RefusedError: the plan can't be done on the model's graph.
            InputError: the loss is no number.
        """
        student = apply(copy.deepcopy(self.pipe.transformer).float().requires_grad_(True), plan)
        loss = HealingLoss(
            teacher=self.pipe.transformer,
            student=student,
            matches=(),
            form=self.batches.form,
            scheduler=self.pipe.scheduler,
            weights={OUTPUT: 1.0},
            sigmas=None,
        )
        device = self.pipe.transformer.device
        with tempfile.TemporaryDirectory() as folder, quietly():
            trained = train_(
                student,
                batches=self.batches,
                loss_of=loss,
                validate=self.held_out,
                settings=self.settings,
                accelerator=open_accelerator(
                    self.settings, Path(folder), device="cpu" if device.type == "cpu" else "auto"
                ),
                folder=Path(folder),
            )
        return trained.best.error


def error_after(
    pipe: Any,
    prompts: Sequence[str],
    held_out: Sequence[str],
    settings: TrainingSettings,
    *,
    call: Mapping[str, Any],
    cache: Path,
    trajectory_steps: int = 8,
    batch_size: int = 16,
    bins: int = 10,
) -> ErrorAfter:
    """The objective of healing a pipeline's transformer for `settings.steps` steps, on what it draws of `prompts`.

    Latents and texts are kept in the folder `cache`, whose owner sees to it that it is of this pipeline alone.

    Raises:
        InputError: the pipeline refuses the call.
        RefusedError: how it calls its transformer can't be taken apart.
    """
    drawn = {**call, "num_inference_steps": trajectory_steps}
    form = learn_form(pipe, drawn)
    maker = Maker(pipe, form, Shelf(cache), {"call": drawn}, drawn, CHUNK, settings.seed)
    with text_encoded_once([pipe]):
        latents = maker.trajectories(prompts, 1, "data to learn from")
        held_latents = maker.trajectories(held_out, 1, "data to measure by")
        texts, held_texts = maker.texts(prompts), maker.texts(held_out)
    batches = NoisedBatches(
        form=form,
        scheduler=pipe.scheduler,
        latents=latents,
        texts=texts,
        texts_of_rows=range(len(prompts)),
        no_text=None,
        unconditional=0.0,
        size=batch_size,
        seed=settings.seed,
    )
    measured = prepare_held_out(
        pipe.transformer,
        form,
        pipe.scheduler,
        held_latents,
        held_texts,
        seed=0,
        bins=bins,
        batch_size=CHUNK,
        device=torch.device(pipe.transformer.device),
    )
    only_last = replace(settings, validate_every=settings.steps, checkpoint_every=settings.steps)
    return ErrorAfter(pipe, batches, measured, only_last)
