"""The configs of the study that builds a DiT from scratch, with all that it does otherwise than the paper."""

from typing import Any

STUDY_LAYERS = 12


def study_config(conditioning: str, *, num_layers: int = STUDY_LAYERS) -> dict[str, Any]:
    """The config of one of the study's models: 128 x 128 pictures as latents (4, 16, 16), texts as 256 channels.

    Its models are in_context, cross_attention, adaln_zero and freq_gate with 12 blocks, and adaln_zero with 14, to
    have as many parameters as freq_gate. `DiT(**study_config(...))` has as many as the study's own, to the digit.
    """
    return {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        "hidden_size": 512,
        "num_layers": num_layers,
        "num_attention_heads": 8,
        "mlp_ratio": 4.0,
        "conditioning": conditioning,
        "pooled_projection_dim": 256,
        "cross_attention_tokens": 1,
        "affine_norms": True,
        "plain_head": True,
        "activation": "silu",
        "own_projections": conditioning != "in_context",
        "unused_layers": True,
    }
