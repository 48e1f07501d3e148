"""What the authors of models call the stacks of diffusers' classes, in their own files and trainers."""

from collections.abc import Mapping

AUTHORS_STACKS: Mapping[str, Mapping[str, str]] = {  # class of diffusers -> its stacks -> the authors' names
    "FluxTransformer2DModel": {"transformer_blocks": "double_blocks", "single_transformer_blocks": "single_blocks"},
    "SD3Transformer2DModel": {"transformer_blocks": "joint_blocks"},
    "Lumina2Transformer2DModel": {name: name for name in ("layers", "noise_refiner", "context_refiner")},
    "ZImageTransformer2DModel": {name: name for name in ("layers", "noise_refiner", "context_refiner")},
    "WanTransformer3DModel": {"blocks": "blocks"},
    "QwenImageTransformer2DModel": {"transformer_blocks": "transformer_blocks"},
    "HunyuanVideoTransformer3DModel": {
        "transformer_blocks": "double_blocks",
        "single_transformer_blocks": "single_blocks",
    },
    "AuraFlowTransformer2DModel": {
        "joint_transformer_blocks": "double_layers",
        "single_transformer_blocks": "single_layers",
    },
    "PixArtTransformer2DModel": {"transformer_blocks": "blocks"},
    "DiTTransformer2DModel": {"transformer_blocks": "blocks"},
}
SPELLINGS: Mapping[str, str] = {  # authors' names of any class that are not its own -> diffusers' name
    authors: stack for stacks in AUTHORS_STACKS.values() for stack, authors in stacks.items() if authors != stack
}
