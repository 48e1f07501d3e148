"""Models of diffusers' classes on the meta device, of full width and few blocks: names are those of real ones.

Enough blocks in one stack that 1, 10 and 11 are among them.
"""

import diffusers
import torch

from surgery.export.contributions import Contributions
from surgery.export.target_text import TargetRequest
from surgery.export.weighted_layers import Settings, choose_factors, join_contributions, plan_layers
from surgery.tracing.steps import find_stack_names

TWO = {"num_layers": 3, "num_single_layers": 12}
HIDREAM = {
    **TWO,
    "llama_layers": list(range(15)),
    "caption_channels": [64, 64],
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "text_emb_dim": 64,
    "num_routed_experts": 4,
    "num_activated_experts": 2,
    "patch_size": 2,
}
LATTE = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "cross_attention_dim": 64,
    "in_channels": 4,
    "out_channels": 8,
    "sample_size": 16,
    "patch_size": 2,
    "caption_channels": 64,
}
FEW_BLOCKS = {
    "FluxTransformer2DModel": TWO,
    "Flux2Transformer2DModel": TWO,
    "SD3Transformer2DModel": {"num_layers": 12},
    "ChromaTransformer2DModel": TWO,
    "AuraFlowTransformer2DModel": {"num_mmdit_layers": 3, "num_single_dit_layers": 12},
    "PixArtTransformer2DModel": {"num_layers": 12},
    "SanaTransformer2DModel": {"num_layers": 12},
    "Lumina2Transformer2DModel": {"num_layers": 12, "num_refiner_layers": 2},
    "ZImageTransformer2DModel": {"n_layers": 12, "n_refiner_layers": 2},
    "HiDreamImageTransformer2DModel": HIDREAM,
    "QwenImageTransformer2DModel": {"num_layers": 12},
    "WanTransformer3DModel": {"num_layers": 12},
    "HunyuanVideoTransformer3DModel": TWO,
    "HunyuanVideo15Transformer3DModel": {"num_layers": 12},
    "HunyuanVideoFramepackTransformer3DModel": TWO,
    "HunyuanImageTransformer2DModel": TWO,
    "LTXVideoTransformer3DModel": {"num_layers": 12},
    "LTX2VideoTransformer3DModel": {"num_layers": 12},
    "CosmosTransformer3DModel": {"num_layers": 12},
    "Kandinsky5Transformer3DModel": {"num_text_blocks": 2, "num_visual_blocks": 12},
    "CogView4Transformer2DModel": {"num_layers": 12},
    "LongCatImageTransformer2DModel": TWO,
}
WITHOUT_ADD_ADAPTER = {
    "DiTTransformer2DModel": {"num_layers": 2},
    "CogView3PlusTransformer2DModel": {"num_layers": 2},
    "HunyuanDiT2DModel": {"num_layers": 4, "sample_size": 32, "in_channels": 4, "patch_size": 2},
    "LatteTransformer3DModel": LATTE,
}


def build_few_blocks(class_name: str) -> torch.nn.Module:
    """A model of a class."""
    config = FEW_BLOCKS.get(class_name) or WITHOUT_ADD_ADAPTER[class_name]
    with torch.device("meta"):
        return getattr(diffusers, class_name)(**config)


def request_for(model: torch.nn.Module, stacks: tuple[str, ...] | None = None) -> TargetRequest:
    """A request in which every other layer of each stack is switched on, by shares that all differ."""
    parts = []
    for stack in stacks or find_stack_names(model):
        length = len(list(model.get_submodule(stack).children()))
        order = sorted(range(length), key=lambda n: (n % 2, n))  # even layers first
        shares = tuple(1 - order.index(n) / length for n in range(length))
        parts.append(Contributions(stack, shares, (("hidden_states", 1.0),), length))
    layers = join_contributions(tuple(parts), model, Settings())
    factors = choose_factors(layers, Settings())
    return TargetRequest(layers, plan_layers(layers, factors, Settings()), factors)
