"""Tiny pipelines of more families, with random weights; texts are encoded by tiny models of the classes that they take.

They have no decoders where a pipeline does without: latents are compared.
"""

import functools

import diffusers
import torch
from diffusers import (
    AutoencoderKLFlux2,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    HunyuanImagePipeline,
    LTXPipeline,
    Lumina2Pipeline,
    QwenImagePipeline,
    SanaPipeline,
    WanImageToVideoPipeline,
    ZImagePipeline,
)
from diffusers.guiders import AdaptiveProjectedMixGuidance
from PIL import Image
from pipelines import tiny_t5, tiny_tokenizer
from tiny_transformers import read_cases
from transformers import (
    Gemma2Config,
    Gemma2Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)
from two_transformers import CALL as WAN_CALL
from two_transformers import LAYERS, LAYERS_2, wan_pipeline, wan_transformer

VOCABULARY = 1202
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
SIZE = {"height": 64, "width": 64, "max_sequence_length": 16}


def language_model(config_class, model_class, width):
    sizes = {"hidden_size": width, "intermediate_size": 8, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
    return model_class(
        config_class(**sizes, num_attention_heads=2, num_key_value_heads=1, head_dim=4, pad_token_id=0)
    ).eval()


def qwen_vl(width):
    """The text model of Qwen2.5-VL, with as little of the rest as there can be."""
    text = {"hidden_size": width, "intermediate_size": 8, "num_hidden_layers": 4, "vocab_size": VOCABULARY}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, width // 4 - 2]}
    seen = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": width}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=seen)).eval()


def transformer(name, *, seed=0, **changes):
    """The tiny transformer of a class, with random weights in every layer."""
    torch.manual_seed(seed)
    model = getattr(diffusers, name).from_config({**read_cases()[name]["config"], **changes}).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape) * 0.1)
    return model


def flow_matching():
    return FlowMatchEulerDiscreteScheduler()


def _sana():
    pipe = SanaPipeline(
        tokenizer=tiny_tokenizer(16),
        text_encoder=language_model(Gemma2Config, Gemma2Model, 8),
        vae=None,
        transformer=transformer("SanaTransformer2DModel"),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, final_sigmas_type="zero"
        ),
    )
    return pipe, {**SIZE, "use_resolution_binning": False, "complex_human_instruction": None}


def _lumina2():
    pipe = Lumina2Pipeline(
        tokenizer=tiny_tokenizer(64),
        text_encoder=language_model(Gemma2Config, Gemma2Model, 32),
        vae=None,
        transformer=transformer("Lumina2Transformer2DModel", num_refiner_layers=1),
        scheduler=flow_matching(),
    )
    return pipe, {**SIZE, "max_sequence_length": 64, "guidance_scale": 4.0}


def _qwen():
    pipe = QwenImagePipeline(
        tokenizer=tiny_tokenizer(64),
        text_encoder=qwen_vl(16),
        vae=None,
        transformer=transformer("QwenImageTransformer2DModel"),
        scheduler=flow_matching(),
    )
    return pipe, {**SIZE, "true_cfg_scale": 4.0, "negative_prompt": ["blurred", "blurred"]}


def _z_image():
    tokenizer = tiny_tokenizer(64)
    tokenizer.chat_template = CHAT
    pipe = ZImagePipeline(
        tokenizer=tokenizer,
        text_encoder=language_model(Qwen3Config, Qwen3Model, 16),
        vae=None,
        transformer=transformer("ZImageTransformer2DModel", n_refiner_layers=1),
        scheduler=flow_matching(),
    )
    return pipe, {**SIZE, "guidance_scale": 4.0}


def _klein():
    """FLUX.2 takes pictures before its prompts."""
    tokenizer = tiny_tokenizer(64)
    tokenizer.chat_template = CHAT
    pipe = Flux2KleinPipeline(
        tokenizer=tokenizer,
        text_encoder=language_model(Qwen3Config, Qwen3ForCausalLM, 8),
        vae=AutoencoderKLFlux2(latent_channels=4, block_out_channels=(4,) * 4, norm_num_groups=2).eval(),
        transformer=transformer(
            "Flux2Transformer2DModel",
            in_channels=16,
            joint_attention_dim=3 * 8,
            timestep_guidance_channels=8,
            guidance_embeds=False,
        ),
        scheduler=flow_matching(),
    )
    return pipe, {**SIZE, "guidance_scale": 4.0, "text_encoder_out_layers": (0, 1, 2)}


def _cogvideox():
    pipe = CogVideoXPipeline(
        tokenizer=tiny_tokenizer(16),
        text_encoder=tiny_t5(8),
        vae=None,
        transformer=transformer("CogVideoXTransformer3DModel"),
        scheduler=CogVideoXDDIMScheduler(),
    )
    return pipe, {**SIZE, "max_sequence_length": 8, "num_frames": 5, "guidance_scale": 4.0}


def _hunyuan_image():
    pipe = HunyuanImagePipeline(
        tokenizer=tiny_tokenizer(64),
        text_encoder=qwen_vl(12),
        tokenizer_2=tiny_tokenizer(64),
        text_encoder_2=tiny_t5(12),
        vae=None,
        transformer=transformer("HunyuanImageTransformer2DModel"),
        scheduler=flow_matching(),
        guider=AdaptiveProjectedMixGuidance(),
    )
    pipe.tokenizer_max_length = pipe.tokenizer_2_max_length = 20
    return pipe, {"height": 128, "width": 128}


def _ltx():
    pipe = LTXPipeline(
        tokenizer=tiny_tokenizer(16),
        text_encoder=tiny_t5(16),
        vae=None,
        transformer=transformer("LTXVideoTransformer3DModel"),
        scheduler=flow_matching(),
    )
    return pipe, {**SIZE, "num_frames": 9, "guidance_scale": 4.0}


def _wan():
    pipe = wan_pipeline(boundary_ratio=None)
    pipe.register_modules(transformer_2=None)
    return pipe, dict(WAN_CALL)


def _wan_pair():
    return wan_pipeline(), {**WAN_CALL, "guidance_scale_2": 2.0}


def _wan_video_of_picture(num_channels=4 + 4 + 4, **config):
    """Its transformers are given the latents with a mask and the picture beside them, or a time for each token."""
    base = wan_pipeline()
    has_two = config.get("boundary_ratio") is not None
    pipe = WanImageToVideoPipeline(
        **{name: base.components[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler")},
        transformer=wan_transformer(LAYERS, 1, num_channels),
        transformer_2=wan_transformer(LAYERS_2, 2, num_channels) if has_two else None,
        image_processor=None,
        image_encoder=None,
        **config,
    )
    return pipe, {**WAN_CALL, "num_frames": 5, "image": Image.new("RGB", (16, 16), "teal")}


FAMILIES = {
    "sana": _sana,
    "lumina2": _lumina2,
    "qwen": _qwen,
    "z-image": _z_image,
    "cogvideox": _cogvideox,
    "hunyuan-image": _hunyuan_image,
    "ltx": _ltx,
    "wan": _wan,
    "wan-pair": _wan_pair,
    "wan-picture": functools.partial(_wan_video_of_picture, boundary_ratio=0.7),
    "wan-tokens": functools.partial(_wan_video_of_picture, 4, expand_timesteps=True),
    "klein": _klein,
}


@functools.cache
def family_pipeline(name):
    """A pipeline and arguments for its call, of three steps."""
    torch.manual_seed(0)
    pipe, call = FAMILIES[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe, {**call, "num_inference_steps": 3}


def draw_family(pipe, call, *, count=2, each=1):
    """The latents that a pipeline draws of a few prompts, `each` of every one."""
    prompts = ["a red apple", "two blue birds on a wire"]
    noise = [torch.Generator().manual_seed(number) for number in range(count * each)]
    given = {"prompt": prompts[:count], "generator": noise, "output_type": "latent", "return_dict": False, **call}
    return torch.as_tensor(pipe(**given)[0])
