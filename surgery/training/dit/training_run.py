"""A training config -> a trained DiT in the folder of a stock pipeline; a run that was stopped goes on where it was."""

from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler

from surgery.dit.gates import read_channel_gates
from surgery.errors import InputError
from surgery.experiment.run import library_versions
from surgery.files import write_whole
from surgery.outputs import own_folder, refuse_folder
from surgery.training.accelerator import open_accelerator, start_trackers
from surgery.training.dit.built_pipeline import build_pipeline, labels_of
from surgery.training.dit.components import hash_weights, load_autoencoder
from surgery.training.dit.config import SPECTRAL, TrainConfig
from surgery.training.dit.labels import Labels
from surgery.training.dit.logged_gates import LoggedGates, course_of_gates, middles_of, without_gates
from surgery.training.dit.noised_pictures import DenoisingLoss, HeldOutLoss, TrainingBatches
from surgery.training.dit.pictures import read_pictures
from surgery.training.dit.run_data import RunData, prepare_data, write_held_out
from surgery.training.dit.sample_sheets import MAX_LABELS, SampleSheets
from surgery.training.dit.train_request import GATED, TrainRequest, key_of, key_of_pictures, refuse_among_pictures
from surgery.training.dit.trained_folder import TRAIN, write_trained
from surgery.training.loop import ERROR, Trained, Validate, train_
from surgery.training.shelf import Shelf
from surgery.training.state import NAME as STATE
from surgery.written import Written, read_written, write_written

PICTURES = "pictures.txt"  # in the folder of a run: the key of its pictures
SAMPLES = "samples"


@dataclass(frozen=True)
class TrainedModel:
    """What was written; `facts` are what `training.json` says."""

    folder: Path
    facts: Mapping[str, Any]
    trained: Trained


def train_model(request: TrainRequest) -> TrainedModel:
    """Train what a config says, and write it.

    Raises:
        SpecError: the config does not fit its pictures or its autoencoder, with the places.
        InputError: something can't be read or written; a loss is no number; the folder is of another run.
    """
    settings = request.config.settings
    refuse_folder(request.out, TRAIN, force=request.force)
    refuse_among_pictures(request)
    accelerator = open_accelerator(settings, request.work_folder, device=request.device)
    key = key_of(request.config)
    is_main = accelerator.is_main_process
    has_state = (request.work_folder / STATE).exists()  # without one there is nothing to lose
    force = request.force or not has_state
    with own_folder(request.work_folder, TRAIN, key, force=force) if is_main else nullcontext():
        accelerator.wait_for_everyone()
        start_trackers(accelerator, settings, request.work_folder)
        return _train(request, key, accelerator)


def _train(request: TrainRequest, key: str, accelerator: Any) -> TrainedModel:
    config, shelf = request.config, Shelf(request.cache_folder)
    vae = load_autoencoder(config)
    vae = None if vae is None else vae.to(accelerator.device)
    with accelerator.main_process_first():  # which makes what is not kept yet
        pictures = read_pictures(config, shelf, request.draw_emoji)
        data = prepare_data(config, pictures, vae, shelf)
    pipe = build_pipeline(config, data, vae).to(accelerator.device)
    if accelerator.is_main_process:
        parts = [hash_weights(part) for part in (vae, getattr(pipe, "text_encoder", None))]
        _own_state(request, key, key_of_pictures(pictures, parts))
        write_held_out(request.work_folder, data, config.data.size)
    accelerator.wait_for_everyone()
    trained = _run_loop(request, pipe, data, accelerator)
    facts = _facts_of(config, pipe, data, trained)
    if accelerator.is_main_process:
        write_trained(pipe, request.out, facts, request=key, force=request.force)
    accelerator.end_training()
    return TrainedModel(request.out, facts, trained)


def _own_state(request: TrainRequest, key: str, pictures: str) -> None:
    """Mark the folder of the run as of this config and these pictures; a state of others goes, which takes `force`.

    Raises:
        InputError: it has a state of other pictures, and there is no `force`.
    """
    folder = request.work_folder
    before, noted = read_written(folder, TRAIN), folder / PICTURES
    is_other = noted.exists() and noted.read_text().strip() != pictures
    if is_other and (folder / STATE).exists() and not request.force:
        raise InputError(
            f"{folder} holds the state of a run with other pictures; give another folder, or --force to begin again"
        )
    if is_other or (before is not None and before.request != key):
        (folder / STATE).unlink(missing_ok=True)
    write_whole(noted, pictures + "\n")
    write_written(folder, TRAIN, Written(key, {STATE: ()}))


def _run_loop(request: TrainRequest, pipe: Any, data: RunData, accelerator: Any) -> Trained:
    config, settings = request.config, request.config.settings
    labels, scheduler = labels_of(pipe, data), DDPMScheduler.from_config(pipe.scheduler.config)
    batches = TrainingBatches(
        data.clean, data.split.learnt, data.numbers, labels, scheduler,
        config.batch_size, config.label_dropout, settings.seed,
    )  # fmt: skip
    held_out = HeldOutLoss(
        data.clean, data.split.held_out, data.numbers, labels, scheduler,
        config.validation.bins, config.batch_size, accelerator.device,
    )  # fmt: skip
    return train_(
        pipe.transformer,
        batches=batches,
        loss_of=DenoisingLoss(settings.weights.get(SPECTRAL, 0.0)),
        validate=_logging(held_out, request, scheduler),
        settings=settings,
        accelerator=accelerator,
        folder=request.work_folder,
        samples=_sheets(request, pipe, labels),
    )


def _sheets(request: TrainRequest, pipe: Any, labels: Labels) -> SampleSheets:
    config = request.config
    names = tuple(labels.names[:MAX_LABELS])
    folder = request.work_folder / SAMPLES
    return SampleSheets(pipe, names, config.sampling, config.settings.seed, config.settings.steps, folder)


def _logging(held_out: HeldOutLoss, request: TrainRequest, scheduler: DDPMScheduler) -> Validate:
    if not request.log_gates:
        return held_out
    return LoggedGates(held_out, request.config.validation.bins, scheduler.config.num_train_timesteps)


def _gates_of(model: Any, num_timesteps: int, bins: int, trained: Trained) -> dict[str, Any]:
    """How far the gates of each block are open to the low adapter at the middle of each bin, on the mean over channels
    (`low`), and how far the channels go apart (`spread`, their standard deviation); nothing without gates. `course` has
    `low` after so many steps, where it was logged.
    """
    if model.config.conditioning != GATED:
        return {}
    middles = middles_of(bins)
    gates = read_channel_gates(model, [share * num_timesteps for share in middles])
    course = course_of_gates(trained.history, len(gates), bins)
    read = {"shares": middles, "low": gates.mean(dim=-1).tolist(), "spread": gates.std(dim=-1, correction=0).tolist()}
    return {"gates": {**read, **({"course": course} if course else {})}}


def _facts_of(config: TrainConfig, pipe: Any, data: RunData, trained: Trained) -> dict[str, Any]:
    """What is known of a run, as plain data."""
    best = without_gates(trained.best.values)
    counted = Counter(data.pictures[number].label for number in data.split.learnt)
    model = {name: value for name, value in pipe.transformer.config.items() if not name.startswith("_")}
    return {
        "title": config.title,
        "model": model,
        "parameters": sum(value.numel() for value in pipe.transformer.parameters()),
        "pictures": {
            "source": Path(config.data.pictures).name,
            "learnt": len(data.split.learnt),
            "held_out": len(data.split.held_out),
            "labels": {name: counted[name] for name in data.names},
        },
        "steps": trained.steps,
        "validation": {
            "step": trained.best.step,
            "loss": best[ERROR],
            "bins": {name: value for name, value in best.items() if name != ERROR},
            "history": [[measured.step, measured.error] for measured in trained.history],
        },
        **_gates_of(pipe.transformer, pipe.scheduler.config.num_train_timesteps, config.validation.bins, trained),
        "settings": {
            **config.settings.to_json(),
            "batch_size": config.batch_size,
            "label_dropout": config.label_dropout,
        },
        "config": config.text,
        "versions": library_versions(),
    }
