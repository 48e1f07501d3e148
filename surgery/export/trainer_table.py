"""The one table of trainers: what each calls the stacks of each class, what it leaves out, and what must be set.

A row is what the trainer's own code says in the version that stands beside it. What is not here is refused.
"""

from collections.abc import Mapping

from surgery.export.trainers import Family, Trainer

FLUX, FLUX2, SD3 = "FluxTransformer2DModel", "Flux2Transformer2DModel", "SD3Transformer2DModel"
CHROMA, AURAFLOW, PIXART = "ChromaTransformer2DModel", "AuraFlowTransformer2DModel", "PixArtTransformer2DModel"
SANA, LUMINA2, Z_IMAGE = "SanaTransformer2DModel", "Lumina2Transformer2DModel", "ZImageTransformer2DModel"
HIDREAM, QWEN, WAN = "HiDreamImageTransformer2DModel", "QwenImageTransformer2DModel", "WanTransformer3DModel"
HUNYUAN_VIDEO, HUNYUAN_VIDEO_15 = "HunyuanVideoTransformer3DModel", "HunyuanVideo15Transformer3DModel"
FRAMEPACK, HUNYUAN_IMAGE = "HunyuanVideoFramepackTransformer3DModel", "HunyuanImageTransformer2DModel"
LTX, LTX2, COSMOS = "LTXVideoTransformer3DModel", "LTX2VideoTransformer3DModel", "CosmosTransformer3DModel"
KANDINSKY5, COGVIEW4 = "Kandinsky5Transformer3DModel", "CogView4Transformer2DModel"
LONGCAT = "LongCatImageTransformer2DModel"

ONE = ("transformer_blocks",)
TWO = ("transformer_blocks", "single_transformer_blocks")
REFINED = ("noise_refiner", "context_refiner", "layers")
REFINER = "context_embedder.token_refiner.refiner_blocks"
TOKEN_REFINER = (REFINER, "transformer_blocks")
DISTILLED = ("distilled_guidance_layer.layers", "distilled_guidance_layer.norms")


def same(*stacks: str) -> Mapping[str, str]:
    """Stacks that the trainer calls as diffusers does."""
    return {stack: stack for stack in stacks}


COUNTED = ("routes", "blocks")  # TREAD and DiffusionBlocks of SimpleTuner, which number layers through
DOUBLE_SINGLE = {"transformer_blocks": "double_blocks", "single_transformer_blocks": "single_blocks"}

SIMPLETUNER = Trainer(
    *("SimpleTuner", "4.10.1", "2026-11-29"),
    {
        FLUX: Family("flux", same(*TWO), counted=TWO, has=COUNTED),
        FLUX2: Family("flux2", same(*TWO), counted=TWO, has=COUNTED),
        SD3: Family("sd3", same(*ONE), counted=ONE, has=COUNTED),
        CHROMA: Family("chroma", same(*DISTILLED, *TWO), counted=TWO, has=COUNTED),
        AURAFLOW: Family(
            "auraflow",
            same("joint_transformer_blocks", "single_transformer_blocks"),
            counted=("joint_transformer_blocks", "single_transformer_blocks"),
            has=COUNTED,
        ),
        PIXART: Family("pixart_sigma", same(*ONE), counted=ONE, has=COUNTED),
        SANA: Family("sana", same(*ONE)),
        LUMINA2: Family("lumina2", same(*REFINED)),
        Z_IMAGE: Family("z_image", same(*REFINED), counted=("layers",), has=("routes",)),
        HIDREAM: Family("hidream", same("double_stream_blocks", "single_stream_blocks", "caption_projection")),
        QWEN: Family("qwen_image", same(*ONE), counted=ONE, has=COUNTED),
        WAN: Family("wan", same("blocks"), counted=("blocks",), has=COUNTED),
        HUNYUAN_VIDEO_15: Family("hunyuanvideo", same(*TOKEN_REFINER)),
        LTX: Family("ltxvideo", same(*ONE)),
        COSMOS: Family("cosmos2image", same(*ONE)),
        KANDINSKY5: Family("kandinsky5-image", same("text_transformer_blocks", "visual_transformer_blocks")),
        LONGCAT: Family("longcat_image", same(*TWO)),
    },
)

SD_SCRIPTS = Trainer(
    *("sd-scripts", "of August 2026", "2026-11-29"),
    {
        FLUX: Family(
            "flux_train_network.py",
            DOUBLE_SINGLE,
            has=("lycoris", "reg_dims", "block_indices"),
            module="networks.lora_flux",
            most_layers={"transformer_blocks": 19, "single_transformer_blocks": 38},
        ),
        CHROMA: Family(
            "flux_train_network.py",
            DOUBLE_SINGLE,
            has=("lycoris", "reg_dims", "block_indices"),
            module="networks.lora_flux",
            options="--model_type chroma",
            most_layers={"transformer_blocks": 19, "single_transformer_blocks": 38},
        ),
        SD3: Family(
            "sd3_train_network.py",
            {"transformer_blocks": "joint_blocks"},
            has=("lycoris", "block_indices"),
            module="networks.lora_sd3",
        ),
        LUMINA2: Family("lumina_train_network.py", same(*REFINED), has=("lycoris",), module="networks.lora_lumina"),
        HUNYUAN_IMAGE: Family(
            "hunyuan_image_train_network.py",
            DOUBLE_SINGLE,
            has=("lycoris", "reg_dims"),
            module="networks.lora_hunyuan_image",
        ),
    },
)

AI_TOOLKIT = Trainer(
    *("ai-toolkit", "0.12.26", "2026-11-29"),
    {
        FLUX: Family("flux", same(*TWO)),
        FLUX2: Family("flux2", DOUBLE_SINGLE),
        SD3: Family("sd3", same(*ONE)),
        CHROMA: Family("chroma", {**DOUBLE_SINGLE, DISTILLED[0]: DISTILLED[0]}),
        AURAFLOW: Family("auraflow", same("joint_transformer_blocks", "single_transformer_blocks")),
        PIXART: Family("pixart_sigma", same(*ONE)),
        LUMINA2: Family("lumina2", same(*REFINED)),
        Z_IMAGE: Family("zimage", same(*REFINED)),
        HIDREAM: Family("hidream", same("double_stream_blocks", "single_stream_blocks", "caption_projection")),
        QWEN: Family("qwen_image", same(*ONE)),
        WAN: Family("wan21", same("blocks"), prefix="."),  # of Wan 2.2 14B both transformers stand between
        COGVIEW4: Family("cogview4", same(*ONE)),
        LTX2: Family("ltx2", same(*ONE)),
    },
)

ONETRAINER = Trainer(
    *("OneTrainer", "of August 2026", "2026-11-29"),
    {
        FLUX: Family("FLUX_DEV_1", same(*TWO)),
        FLUX2: Family("FLUX_2", same(*TWO)),
        SD3: Family("STABLE_DIFFUSION_35", same(*ONE)),
        CHROMA: Family("CHROMA_1", same(*DISTILLED, *TWO)),
        PIXART: Family("PIXART_SIGMA", same(*ONE)),
        SANA: Family("SANA", same(*ONE)),
        Z_IMAGE: Family("Z_IMAGE", same(*REFINED)),
        HIDREAM: Family("HI_DREAM_FULL", same("double_stream_blocks", "single_stream_blocks", "caption_projection")),
        QWEN: Family("QWEN", same(*ONE)),
        HUNYUAN_VIDEO: Family("HUNYUAN_VIDEO", same(*TOKEN_REFINER, "single_transformer_blocks")),
    },
)

DOUBLE_OR_SINGLE = r"(?:img|txt)_(?:attn|mlp)[._].*|linear[12]"
MUSUBI = Trainer(
    *("musubi-tuner", "0.3.4", "2026-11-29"),
    {
        FLUX: Family(
            "flux_kontext_train_network.py", DOUBLE_SINGLE, module="networks.lora_flux", inside=DOUBLE_OR_SINGLE
        ),
        FLUX2: Family("flux_2_train_network.py", DOUBLE_SINGLE, module="networks.lora_flux_2", inside=DOUBLE_OR_SINGLE),
        WAN: Family(
            "wan_train_network.py",
            same("blocks"),
            module="networks.lora_wan",
            inside=r"(?:self_attn|cross_attn|ffn)\..*",
        ),
        QWEN: Family("qwen_image_train_network.py", same(*ONE), module="networks.lora_qwen_image"),
        Z_IMAGE: Family(
            "zimage_train_network.py",
            same("layers"),
            module="networks.lora_zimage",
            inside=r"(?:attention|feed_forward)\..*",
        ),
        HUNYUAN_VIDEO: Family("hv_train_network.py", DOUBLE_SINGLE, module="networks.lora", inside=DOUBLE_OR_SINGLE),
        HUNYUAN_VIDEO_15: Family(
            "hv_1_5_train_network.py", {"transformer_blocks": "double_blocks"}, module="networks.lora_hv_1_5"
        ),
        FRAMEPACK: Family(
            "fpack_train_network.py",
            same(*TWO),
            module="networks.lora_framepack",
            inside=r"(?:attn|ff|ff_context)\..*|proj_mlp|proj_out",
        ),
        KANDINSKY5: Family(
            "kandinsky5_train_network.py",
            same("text_transformer_blocks", "visual_transformer_blocks"),
            module="networks.lora_kandinsky",
            inside=r"(?:(?:self|cross)_attention|feed_forward)\..*",
        ),
    },
)


def script(name: str) -> str:
    """The training script of diffusers for a family."""
    return f"train_dreambooth_lora_{name}.py"


DIFFUSERS = Trainer(
    *("the training scripts of diffusers", "of August 2026", "2026-11-29"),
    {
        FLUX: Family(script("flux"), same(*TWO), has=("alpha",)),
        FLUX2: Family(script("flux2"), same(*TWO), has=("alpha",)),
        SD3: Family(script("sd3"), same(*ONE), has=("lora_blocks",)),
        SANA: Family(script("sana"), same(*ONE), has=("alpha",)),
        LUMINA2: Family(script("lumina2"), same(*REFINED)),
        HIDREAM: Family(script("hidream"), same("double_stream_blocks", "single_stream_blocks", "caption_projection")),
        QWEN: Family(script("qwen_image"), same(*ONE), has=("alpha",)),
        Z_IMAGE: Family(script("z_image"), same(*REFINED), has=("alpha",)),
    },
)

PEFT = Trainer("PEFT", "0.21.2", "2026-11-29", None)
LYCORIS = Trainer("LyCORIS", "4.1.3", "2026-11-29", None)
