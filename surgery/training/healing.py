"""A compiled checkpoint -> the same, healed: trained to predict what its base model predicts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from surgery.anatomy.sources import ModelSource
from surgery.errors import InputError
from surgery.experiment.run import call_of, hash_pipeline_files, library_versions
from surgery.metrics.contact_sheet import contact_sheet
from surgery.outputs import own_folder, refuse_folder, refuse_foreign
from surgery.pipelines.draw import check_call, draw_pictures
from surgery.pipelines.pretrained import load_pretrained
from surgery.pipelines.shared_text import text_encoded_once
from surgery.progress import quietly
from surgery.publish.manifest import HEALED
from surgery.publish.pruned_model import refuse_own_source
from surgery.training.accelerator import open_accelerator, start_trackers
from surgery.training.adapters import merge_adapters_, put_adapters_, refuse_apart, save_adapters
from surgery.training.call_form import learn_form
from surgery.training.features import match_blocks
from surgery.training.heal_request import HealRequest, key_of, refuse_request, split_of
from surgery.training.healable import Healable, open_healable
from surgery.training.healed_facts import facts_of
from surgery.training.healed_folder import write_healed
from surgery.training.healing_data import Maker, Split
from surgery.training.healing_loss import DENOISING, FEATURES, OUTPUT, HealingLoss
from surgery.training.held_out import HeldOut, prepare_held_out
from surgery.training.loop import Sampler, Trained, train_
from surgery.training.noised_batches import NoisedBatches
from surgery.training.shelf import Shelf
from surgery.training.state import NAME as STATE
from surgery.training.trained_parts import choose_trained_
from surgery.written import COMPILE, Written, read_written, write_written

HEAL = "heal"
DTYPES = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}  # of the teacher, by the precision of the student
DRAWN_AT_ONCE = 16


@dataclass(frozen=True)
class Healed:
    """What was written; `facts` are the entry `healed` of the manifest.

    `is_first` is false in all but one of several processes: one of them speaks for all.
    """

    folder: Path
    facts: Mapping[str, Any]
    trained: Trained
    is_first: bool = True


def heal_checkpoint(request: HealRequest) -> Healed:
    """Heal a checkpoint, and write the result; a run that was stopped goes on where it was.

    Raises:
        InputError: an option, the data, the checkpoint or its base is not usable; a loss is no number; a disk is full.
        RefusedError: the checkpoint can't be healed, or not so.
    """
    refuse_request(request)
    healable = open_healable(request.checkpoint, request.model)
    for source in (healable.student, healable.base):
        refuse_own_source(request.out, source)
        refuse_own_source(request.work_folder, source)
    refuse_folder(request.out, COMPILE, force=request.force)
    refuse_foreign(request.out)
    split = split_of(request)
    key = key_of(request, healable, split)
    accelerator = open_accelerator(request.settings, request.work_folder, device=request.device)
    is_first = accelerator.is_main_process
    with quietly(not is_first), _own_work(request, key) if is_first else nullcontext():
        accelerator.wait_for_everyone()
        return _heal(request, healable, split, accelerator)


@contextmanager
def _own_work(request: HealRequest, key: str) -> Iterator[None]:
    """The folder of the run, locked; a state of another request goes, which takes `force`."""
    folder = request.work_folder
    before = read_written(folder, HEAL)
    with own_folder(folder, HEAL, key, force=request.force):
        if before is not None and before.request != key:
            (folder / STATE).unlink(missing_ok=True)
        write_written(folder, HEAL, Written(key, {STATE: ()}))
        yield


def _heal(request: HealRequest, healable: Healable, split: Split, accelerator: Any) -> Healed:
    start_trackers(accelerator, request.settings, request.work_folder)
    teacher = load_teacher(healable.base, request, accelerator)
    if request.lora_apart:
        refuse_apart(type(teacher))
    student = load_pretrained(healable.student, dtype="float32", device=accelerator.device, transformer_only=True)
    choose_trained_(student, request.train, healable.plan)
    if request.train == "lora":
        put_adapters_(student, healable.plan, request.rank, request.settings.seed)
    call = {**call_of(healable.base, request.call), "num_inference_steps": request.trajectory_steps}
    with accelerator.main_process_first():  # which makes what is not kept yet
        batches, held_out = prepare_data(request, healable, teacher, split, call, accelerator)
    loss = _loss(request, healable, teacher, student, batches)
    trained = train_(
        student,
        batches=batches,
        loss_of=loss,
        validate=held_out,
        settings=request.settings,
        accelerator=accelerator,
        folder=request.work_folder,
        samples=_sampler(request, healable, teacher, split),
        label="healing",
    )
    facts = facts_of(request, healable, split, trained, call, accelerator.device.type)
    if accelerator.is_main_process:
        facts = _write(request, healable, teacher, student, facts)
    accelerator.end_training()
    return Healed(request.out, facts, trained, accelerator.is_main_process)


def load_teacher(base: ModelSource, request: HealRequest, accelerator: Any) -> Any:
    """The pipeline of the base model, which nothing changes."""
    pipe = load_pretrained(base, dtype=DTYPES[request.settings.precision], device=accelerator.device)
    pipe.set_progress_bar_config(disable=True)
    check_call(pipe, call_of(base, request.call))
    pipe.transformer.requires_grad_(False)
    return pipe


def prepare_data(
    request: HealRequest, healable: Healable, teacher: Any, split: Split, call: Mapping[str, Any], accelerator: Any
) -> tuple[NoisedBatches, HeldOut]:
    """What is learnt from, and what is measured by."""
    form = learn_form(teacher, call)
    recipe = {
        "base": {name: value for name, value in healable.manifest["base"].items() if name != "model"},
        "components": hash_pipeline_files(healable.base),
        "call": dict(call),
        "dtype": DTYPES[request.settings.precision],
        "versions": library_versions(),
    }
    cache = request.work_folder / "data" if request.cache is None else request.cache
    maker = Maker(teacher, form, Shelf(cache), recipe, call, DRAWN_AT_ONCE, request.settings.seed)
    with text_encoded_once([teacher]):
        learnt = _rows_of(maker, request, split.learnt, request.latents_per_prompt, "data to learn from")
        measured = _rows_of(maker, request, split.held_out, 1, "data to measure by")
    (latents, texts, texts_of_rows), (held_latents, held_texts, _) = learnt, measured
    no_text = len(split.learnt) if len(texts) > len(split.learnt) else None
    batches = NoisedBatches(
        form, teacher.scheduler, latents, texts, texts_of_rows, no_text, request.unconditional, request.batch_size,
        request.settings.seed,
    )  # fmt: skip
    held_out = prepare_held_out(
        teacher.transformer, form, teacher.scheduler, held_latents, held_texts,
        seed=0, bins=request.bins, batch_size=max(request.batch_size, DRAWN_AT_ONCE), device=accelerator.device,
    )  # fmt: skip
    return batches, held_out


def _rows_of(maker: Maker, request: HealRequest, items: Any, count: int, label: str) -> tuple[Any, Any, list[int]]:
    """Latents, texts, and which text each of the latents has."""
    if request.pictures is None:
        return maker.trajectories(items, count, label), maker.texts(items), [*range(len(items))] * count
    latents = maker.encoded([picture.file for picture in items], label)
    return latents, maker.texts([picture.caption for picture in items]), [*range(len(items))]


def _loss(
    request: HealRequest, healable: Healable, teacher: Any, student: nn.Module, batches: NoisedBatches
) -> HealingLoss:
    weights = {name: request.settings.weights.get(name, 0.0) for name in (OUTPUT, FEATURES, DENOISING)}
    matches = match_blocks(healable.plan) if weights[FEATURES] else ()
    if weights[DENOISING] and batches.form.view is None:
        raise InputError(
            f"what {type(teacher).__name__} makes of its transformer's output is not known, so that pictures can't "
            "teach it; leave --denoising out"
        )
    return HealingLoss(
        teacher.transformer, student, matches, batches.form, teacher.scheduler, weights, request.mask_sigmas
    )


def _sampler(request: HealRequest, healable: Healable, teacher: Any, split: Split) -> Sampler | None:
    if not request.num_samples:
        return None
    prompts = [getattr(item, "caption", item) for item in split.held_out[: request.num_samples]]
    call = call_of(healable.base, request.call)

    def draw(model: Any, step: int) -> None:
        with running(teacher, model):
            drawn = draw_pictures(
                teacher, prompts, seed=request.settings.seed, batch_size=request.batch_size, call=call
            )
        sheet = contact_sheet([[item.image for item in drawn]], row_names=[f"step {step}"], column_names=prompts)
        folder = request.work_folder / "samples"
        folder.mkdir(exist_ok=True)
        sheet.save(folder / f"step-{step:06}.png")

    return draw


@contextmanager
def running(pipe: Any, model: nn.Module) -> Iterator[None]:
    """Within it a pipeline runs another transformer."""
    own = pipe.transformer
    pipe.register_modules(transformer=model)
    try:
        yield
    finally:
        pipe.register_modules(transformer=own)


def _write(
    request: HealRequest, healable: Healable, teacher: Any, student: nn.Module, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the result; what the manifest says of it, with the hashes of the weights."""
    if request.train == "lora" and not request.lora_apart:
        merge_adapters_(student)
    apart = partial(save_adapters, student, type(teacher)) if request.lora_apart else None
    healed: dict[str, Any] = write_healed(
        healable, student, request.out, facts, force=request.force, save_apart=apart
    )[HEALED]  # fmt: skip
    return healed
