"""What is asked of healing: the checkpoint, the data, how; what of it can't be done, and what tells two runs apart."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgery.errors import InputError
from surgery.experiment.captions import read_captions
from surgery.files import key_of_recipe
from surgery.training.healable import Healable
from surgery.training.healing_data import Split, split_pictures, split_prompts
from surgery.training.healing_loss import DENOISING, FEATURES, OUTPUT
from surgery.training.settings import TrainingSettings
from surgery.training.trained_parts import PARTS, Part


@dataclass(frozen=True, kw_only=True)
class HealRequest:
    """What is healed, from what it learns, and how; the command's options of these names say more.

    `prompts` or `pictures` (a folder) is given. `held_out` are prompts to measure by; without, a share is held out.
    """

    checkpoint: Path
    out: Path
    settings: TrainingSettings
    prompts: tuple[str, ...] = ()
    pictures: Path | None = None
    held_out: tuple[str, ...] | None = None
    held_out_share: float = 0.1
    model: str | None = None
    train: Part = "all"
    rank: int = 16
    lora_apart: bool = False
    latents_per_prompt: int = 4
    trajectory_steps: int = 8
    unconditional: float = 0.1
    mask_sigmas: float | None = 4.0
    batch_size: int = 8
    bins: int = 10
    num_samples: int = 0
    device: str = "auto"
    call: Mapping[str, Any] = field(default_factory=dict)
    work: Path | None = None
    cache: Path | None = None
    force: bool = False
    arguments: tuple[str, ...] = ()  # of the command, for the card

    @property
    def work_folder(self) -> Path:
        """Where the state, the samples and the logs of the run lie: beside the target, unless it is said."""
        return self.out.with_name(f"{self.out.name}.healing") if self.work is None else self.work


def refuse_request(request: HealRequest) -> None:
    """Raise InputError where options do not go together."""
    if bool(request.prompts) == (request.pictures is not None):
        raise InputError("healing learns from prompts or from pictures; give either --prompts FILE or --pictures DIR")
    if request.pictures is not None and request.held_out is not None:
        raise InputError("of pictures a share is held out; leave --held-out out")
    if request.train not in PARTS:
        raise InputError(f"there is no part {request.train} to train; write {', '.join(PARTS)}")
    weights = request.settings.weights
    if request.pictures is None and weights.get(DENOISING):
        raise InputError("the denoising loss is of real pictures; give --pictures DIR, or leave --denoising out")
    if not any(weights.get(name) for name in (OUTPUT, FEATURES, DENOISING)):
        raise InputError("every loss has the weight 0; give one another")
    if request.lora_apart and request.train != "lora":
        raise InputError("--lora-apart keeps a LoRA apart, and none is trained; write --train lora")


def split_of(request: HealRequest) -> Split:
    """The data of a request, apart by what it is for; raises InputError where there is too little of it."""
    seed = request.settings.seed
    if request.pictures is not None:
        return split_pictures(read_captions(request.pictures), request.held_out_share, seed)
    return split_prompts(request.prompts, request.held_out, request.held_out_share, seed)


def key_of(request: HealRequest, healable: Healable, split: Split) -> str:
    """What tells a run from another: a state of one is none of the other."""
    return key_of_recipe(
        {
            "checkpoint": [healable.manifest["plan"], healable.manifest["files"], healable.manifest.get("healed")],
            "base": healable.manifest["base"],
            "learnt": [str(item) for item in split.learnt],
            "held_out": [str(item) for item in split.held_out],
            "settings": request.settings.path_to_json(),
            "train": [request.train, request.rank],
            "data": [request.latents_per_prompt, request.trajectory_steps, request.unconditional],
            "loss": request.mask_sigmas,
            "batches": [request.batch_size, request.bins],
            "call": dict(request.call),
        }
    )
