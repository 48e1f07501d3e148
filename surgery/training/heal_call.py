"""`surgery.heal`: what the command does, from Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgery.experiment.prompts import read_prompt_file
from surgery.training.heal_request import HealRequest
from surgery.training.healing import Healed, heal_checkpoint
from surgery.training.settings import TrainingSettings
from surgery.training.trained_parts import Part

Prompts = str | Path | Sequence[str]


def heal(
    checkpoint: str | Path,
    out: str | Path,
    settings: TrainingSettings,
    *,
    prompts: Prompts | None = None,
    pictures: str | Path | None = None,
    held_out: Prompts | None = None,
    held_out_share: float = 0.1,
    model: str | None = None,
    train: Part = "all",
    rank: int = 16,
    lora_apart: bool = False,
    latents_per_prompt: int = 4,
    trajectory_steps: int = 8,
    unconditional: float = 0.1,
    mask_sigmas: float | None = 4.0,
    batch_size: int = 16,
    bins: int = 10,
    num_samples: int = 0,
    device: str = "auto",
    call: Mapping[str, Any] | None = None,
    work: str | Path | None = None,
    cache: str | Path | None = None,
    force: bool = False,
) -> Healed:
    """Heal a compiled checkpoint by its base, as `surgery heal` does, and write the result into the folder `out`.

    `prompts` are a list, or the file that the command takes; or `pictures` is a folder of pictures with captions.
    `settings` say how it is trained (`surgery.TrainingSettings`), and their `weights` what the losses `output`,
    `features` and `denoising` count (without any: output 1). The other arguments are the command's options. An
    interrupted call goes on. The result has the `folder`, the `facts` that the manifest has, and how it was `trained`.

    Raises:
        InputError: an option, the data, the checkpoint or its base is not usable; a loss is no number; a disk is full.
        RefusedError: the checkpoint can't be healed, or not so.
    """
    request = HealRequest(
        checkpoint=Path(checkpoint),
        out=Path(out),
        settings=settings,
        prompts=_read(prompts) or (),
        pictures=None if pictures is None else Path(pictures),
        held_out=_read(held_out),
        held_out_share=held_out_share,
        model=model,
        train=train,
        rank=rank,
        lora_apart=lora_apart,
        latents_per_prompt=latents_per_prompt,
        trajectory_steps=trajectory_steps,
        unconditional=unconditional,
        mask_sigmas=mask_sigmas,
        batch_size=batch_size,
        bins=bins,
        num_samples=num_samples,
        device=device,
        call=dict(call or {}),
        work=None if work is None else Path(work),
        cache=None if cache is None else Path(cache),
        force=force,
    )
    return heal_checkpoint(request)


def _read(prompts: Prompts | None) -> tuple[str, ...] | None:
    if prompts is None:
        return None
    return read_prompt_file(Path(prompts)).prompts if isinstance(prompts, (str, Path)) else tuple(prompts)
