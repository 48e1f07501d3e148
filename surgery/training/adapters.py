"""LoRA by peft: adapters in the linear layers of a model's blocks; in the end merged into them, or kept apart."""

from pathlib import Path
from typing import Any

from torch import nn

from surgery.errors import InputError, RefusedError
from surgery.plan.plan import Plan

FILE = "pytorch_lora_weights.safetensors"  # as `load_lora_weights` looks for it


def put_adapters_(model: nn.Module, plan: Plan, rank: int, seed: int) -> None:
    """Put a LoRA into every linear layer of the blocks; only they take gradients, and the model is what it was.

    Raises:
        InputError: peft is not installed, or no block has a linear layer.
    """
    import torch

    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError("--train lora needs peft: pip install 'layer-surgery[lora]'") from None
    stacks = tuple(f"{schedule.stack}." for schedule in plan.schedules)
    targets = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith(stacks)
    ]
    if not targets:
        raise InputError(f"no block of this {type(model).__name__} has a linear layer to adapt; write --train all")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), model)


def merge_adapters_(model: nn.Module) -> None:
    """Add what the adapters learnt to the weights of their layers, and take them out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.get_base_layer())


def refuse_apart(pipeline_class: Any) -> None:
    """Raise RefusedError where a pipeline loads no LoRA."""
    if not hasattr(pipeline_class, "save_lora_weights") or not hasattr(pipeline_class, "load_lora_weights"):
        raise RefusedError(
            f"{pipeline_class.__name__} loads no LoRA (it has no load_lora_weights); leave --lora-apart out, and the "
            "LoRA is merged"
        )


def save_adapters(model: nn.Module, pipeline_class: Any, folder: Path) -> None:
    """Write the adapters as `load_lora_weights(folder)` of the pipeline takes them."""
    from peft import get_peft_model_state_dict

    pipeline_class.save_lora_weights(folder, transformer_lora_layers=get_peft_model_state_dict(model))
