"""Tiny real models, for our tests and for users who test specs of their own."""

from collections.abc import Callable, Mapping

import diffusers
import torch
from torch import nn


def _pixart(num_layers: int = 5) -> nn.Module:
    return diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=num_layers,
        cross_attention_dim=16,
        sample_size=8,
        patch_size=2,
        caption_channels=12,
        use_additional_conditions=False,
    )


def _sd3(num_layers: int = 5, dual: tuple[int, ...] = ()) -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=num_layers,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
        dual_attention_layers=dual,
        qk_norm="rms_norm" if dual else None,
    )


def _flux(num_layers: int = 4, num_single_layers: int = 5) -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=num_layers,
        num_single_layers=num_single_layers,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=False,
    )


def _auraflow(num_layers: int = 3, num_single_layers: int = 4) -> nn.Module:
    return diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=num_layers,
        num_single_dit_layers=num_single_layers,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pos_embed_max_size=64,
    )


def _dit(num_layers: int = 5) -> nn.Module:
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=num_layers,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    )


def _chroma(num_layers: int = 4, num_single_layers: int = 5) -> nn.Module:
    return diffusers.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=num_layers,
        num_single_layers=num_single_layers,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(2, 2, 4),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )


TINY_MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "pixart": _pixart,
    "sd3": _sd3,
    "sd3-dual": lambda: _sd3(dual=(0, 1, 2)),
    "flux": _flux,
    "auraflow": _auraflow,
    "dit": _dit,
    "chroma": _chroma,
}


def build_tiny_model(name: str, *, seed: int = 0) -> nn.Module:
    """A model of `TINY_MODELS` in evaluation mode, float32, with seeded random weights that make every layer matter."""
    torch.manual_seed(seed)
    model = TINY_MODELS[name]().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.05)
    return model
