"""A run of healing -> what the manifest says of it, below `healed`."""

import shlex
from collections.abc import Mapping
from typing import Any

from surgery.experiment.run import library_versions
from surgery.files import key_of_recipe
from surgery.training.heal_request import HealRequest
from surgery.training.healable import Healable
from surgery.training.healing_data import Split
from surgery.training.loop import Trained


def facts_of(
    request: HealRequest, healable: Healable, split: Split, trained: Trained, call: Mapping[str, Any], device: str
) -> dict[str, Any]:
    """The entry `healed` of the manifest, but for the hashes of the weights."""
    first = trained.history[0]
    names = [getattr(item, "caption", item) for item in split.learnt]
    data: dict[str, Any] = {"rows": len(names), "sha256": key_of_recipe({"learnt": names}), "call": dict(call)}
    if request.pictures is None:
        data |= {
            "prompts": len(names),
            "latents_per_prompt": request.latents_per_prompt,
            "trajectory_steps": request.trajectory_steps,
            "unconditional": request.unconditional,
        }
    else:
        data["pictures"] = len({item.file for item in split.learnt})
    part = f"{request.train} of rank {request.rank}" if request.train == "lora" else request.train
    return {
        "teacher": healable.manifest["base"],
        "data": data,
        "trained": part + ", kept apart" * request.lora_apart,
        "batch_size": request.batch_size,
        "settings": request.settings.to_json(),
        "losses": {name: weight for name, weight in request.settings.weights.items() if weight},
        "mask_sigmas": request.mask_sigmas,
        "steps": trained.steps,
        "best_step": trained.best.step,
        "validation": {
            "prompts": len(split.held_out),
            "sha256": key_of_recipe({"held_out": [getattr(item, "caption", item) for item in split.held_out]}),
            "before": first.error,
            "after": trained.best.error,
            "bins_before": dict(first.values),
            "bins_after": dict(trained.best.values),
            "history": [[measured.step, measured.error] for measured in trained.history],
        },
        "device": device,
        "versions": library_versions(),
        "command": shlex.join(["surgery", "heal", request.checkpoint.name, *request.arguments, "--out", "OUT"]),
    }
