"""Whose classes a config was judged by: those of diffusers, where the trainer has model classes of its own."""

from surgery.export.judgement import Judgement
from surgery.export.read_config import SIMPLETUNER

COMPARED = "4.10.1"  # the version of SimpleTuner whose model classes were compared with those of diffusers 0.42.1

# SimpleTuner's own class of a model -> the classes in it that diffusers calls otherwise.
OWN_CLASSES: dict[str, dict[str, str]] = {
    "AuraFlowTransformer2DModel": {},
    "ChromaTransformer2DModel": {},
    "CosmosTransformer3DModel": {"CosmosAttention": "Attention"},
    "Flux2Transformer2DModel": {},
    "FluxTransformer2DModel": {"FluxAttention": "Attention"},
    "HiDreamImageTransformer2DModel": {
        "HiDreamAttention": "Attention",
        "HiDreamBlock": "HiDreamImageBlock",
        "HiDreamImageFeedForwardSwiGLU": "FeedForward",
        "MOEFeedForwardSwiGLU": "MOEFeedForward",
    },
    "HunyuanVideo15Transformer3DModel": {},
    "Kandinsky5Transformer3DModel": {},
    "LTX2VideoTransformer3DModel": {},
    "LTXVideoTransformer3DModel": {},
    "Lumina2Transformer2DModel": {},
    "OmniGenTransformer2DModel": {},
    "PixArtTransformer2DModel": {"BasicTransformerBlock": "PixArtSelfFlowTransformerBlock"},
    "QwenImageTransformer2DModel": {},
    "SD3Transformer2DModel": {},
    "SanaTransformer2DModel": {},
    "SanaVideoTransformer3DModel": {},
    "WanTransformer3DModel": {"WanAttention": "Attention"},
    "ZImageTransformer2DModel": {},
}


def say_whose_classes(judgement: Judgement) -> str | None:
    """A sentence where a config names classes, or names of another program's modules; None where it does not."""
    import diffusers

    judged = f"judged by the classes of diffusers {diffusers.__version__}"
    if judgement.preset.loader is not SIMPLETUNER:
        return f"{judged}; sd-scripts has the classes and module names of the model's authors, which may differ"
    named = [name for name in (*judgement.preset.classes, *judgement.preset.class_map) if not name.startswith("_")]
    if not named or set(named) <= set(SIMPLETUNER.default_classes):
        return None
    own = OWN_CLASSES.get(judgement.class_name)
    if own is None:
        return f"{judged}; SimpleTuner may have a class of its own for {judgement.class_name}, with other classes in it"
    if not own:
        return (
            f"{judged}; SimpleTuner {COMPARED} has a {judgement.class_name} of its own, with classes of the same names"
        )
    renamed = ", ".join(f"{theirs} is called {ours}" for theirs, ours in own.items())
    return f"{judged}; SimpleTuner {COMPARED} has a {judgement.class_name} of its own, in which {renamed}"
