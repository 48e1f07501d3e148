"""Tiny pipelines of real classes with random weights, and the tokenizer of the bundled pipeline."""

import torch
from diffusers import (
    AuraFlowPipeline,
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusion3Pipeline,
)
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from surgery.bundled import DEMO_CALL, demo_folder
from surgery.testing import build_tiny_model

SIZE = {"height": 64, "width": 64, "num_inference_steps": 3}
JOINT = 12  # channels of the tiny models' text


def build_pipeline(name):
    """A pipeline and arguments for its call; `name` is that of its tiny model, or demo."""
    torch.manual_seed(0)
    pipe, call = {"flux": _flux, "sd3": _sd3, "auraflow": _auraflow, "dit": _dit, "demo": _demo}[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe, call


def _demo():
    return DiffusionPipeline.from_pretrained(demo_folder()), {**DEMO_CALL, "num_inference_steps": 3}


def tiny_tokenizer(length):
    tokenizer = AutoTokenizer.from_pretrained(demo_folder() / "tokenizer")
    tokenizer.model_max_length = length
    return tokenizer


def tiny_t5(width=JOINT):
    sizes = {"d_model": width, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 1202}
    return T5EncoderModel(T5Config(**sizes)).eval()


def tiny_clip(model_class, hidden, projection):
    config = CLIPTextConfig(
        vocab_size=1202,
        hidden_size=hidden,
        projection_dim=projection,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        eos_token_id=1,
        pad_token_id=0,
    )
    return model_class(config).eval()


def tiny_autoencoder(latent_channels):
    return AutoencoderKL(
        latent_channels=latent_channels,
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        scaling_factor=0.5,
        shift_factor=0.1,
    ).eval()


def _flux():
    pipe = FluxPipeline(
        transformer=build_tiny_model("flux"),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=tiny_autoencoder(1),
        text_encoder=tiny_clip(CLIPTextModel, 10, 10),
        tokenizer=tiny_tokenizer(77),
        text_encoder_2=tiny_t5(),
        tokenizer_2=tiny_tokenizer(20),
    )
    return pipe, {**SIZE, "max_sequence_length": 20, "guidance_scale": 0.0}


def _sd3():
    pipe = StableDiffusion3Pipeline(
        transformer=build_tiny_model("sd3"),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=tiny_autoencoder(4),
        text_encoder=tiny_clip(CLIPTextModelWithProjection, 4, 4),
        tokenizer=tiny_tokenizer(77),
        text_encoder_2=tiny_clip(CLIPTextModelWithProjection, 6, 6),
        tokenizer_2=tiny_tokenizer(77),
        text_encoder_3=tiny_t5(),
        tokenizer_3=tiny_tokenizer(20),
    )
    return pipe, {**SIZE, "max_sequence_length": 20, "guidance_scale": 5.0}


def _auraflow():
    pipe = AuraFlowPipeline(
        transformer=build_tiny_model("auraflow"),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=tiny_autoencoder(4),
        text_encoder=tiny_t5(),
        tokenizer=tiny_tokenizer(20),
    )
    return pipe, {**SIZE, "max_sequence_length": 20, "guidance_scale": 3.5}


def _dit():
    """Class-conditional: it takes the numbers of classes, and no size."""
    torch.manual_seed(0)
    config = {**build_tiny_model("dit").config, "num_embeds_ada_norm": 1000}  # the pipeline's empty class is 1000
    transformer = DiTTransformer2DModel.from_config(config).eval()
    with torch.no_grad():
        for value in transformer.parameters():
            value.add_(torch.randn(value.shape) * 0.05)
    pipe = DiTPipeline(
        transformer=transformer,
        vae=tiny_autoencoder(4),
        scheduler=DDIMScheduler(num_train_timesteps=1000),
        id2label={0: "tench, Tinca tinca", 1: "goldfish", 2: "shark"},
    )
    return pipe, {"num_inference_steps": 3}
