"""A tiny pipeline with two transformers: one for high noise, one for low, as Wan 2.2 has them."""

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from pipelines import JOINT, tiny_t5, tiny_tokenizer

LAYERS, LAYERS_2 = 4, 3
CALL = {
    "height": 16,
    "width": 16,
    "num_frames": 1,
    "num_inference_steps": 6,
    "guidance_scale": 3.0,
    "max_sequence_length": 20,
}


def wan_transformer(num_layers, seed, in_channels=4):
    torch.manual_seed(seed)
    model = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        out_channels=4,
        text_dim=JOINT,
        freq_dim=8,
        ffn_dim=16,
        num_layers=num_layers,
    ).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape) * 0.05)
    return model


def wan_pipeline(boundary_ratio=0.7):
    """Steps at or above the boundary run `transformer`, of 4 blocks; those below `transformer_2`, of 3."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=3,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()
    pipe = WanPipeline(
        tokenizer=tiny_tokenizer(20),
        text_encoder=tiny_t5(),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=wan_transformer(LAYERS, 1),
        transformer_2=wan_transformer(LAYERS_2, 2),
        boundary_ratio=boundary_ratio,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **call):
    """The latents (1, 4, 1, 2, 2) of one prompt."""
    arguments = {**CALL, "output_type": "latent", **call}
    return pipe("a red apple", generator=torch.Generator().manual_seed(3), **arguments).frames
