"""The modules of the bundled pipeline, untrained: small versions of stock diffusers and transformers classes."""

from collections.abc import Iterable

from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, PixArtTransformer2DModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from surgery.demo.pictures import PICTURE_PX

LATENT_CHANNELS = 4
LATENT_SIZE = PICTURE_PX // 4
TEXT_WIDTH = 128
NUM_BLOCKS = 12
NUM_HEADS = 5
HEAD_WIDTH = 32
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
MAX_CAPTION_TOKENS = 16


def build_autoencoder() -> AutoencoderKL:
    """64 x 64 RGB pictures in [-1, 1] <-> latents of shape (4, 16, 16); 0.65 M parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=PICTURE_PX,
        mid_block_add_attention=False,
    )


def build_transformer() -> PixArtTransformer2DModel:
    """A PixArt transformer of 12 blocks and 160 channels on 16 tokens (4 x 4 patches of the latents)."""
    return PixArtTransformer2DModel(
        num_attention_heads=NUM_HEADS,
        attention_head_dim=HEAD_WIDTH,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=NUM_BLOCKS,
        cross_attention_dim=NUM_HEADS * HEAD_WIDTH,
        sample_size=LATENT_SIZE,
        patch_size=4,
        caption_channels=TEXT_WIDTH,
        use_additional_conditions=False,
    )


def build_text_encoder(vocabulary_size: int) -> T5EncoderModel:
    """A two-layer T5 encoder, trained together with the transformer."""
    config = T5Config(
        vocab_size=vocabulary_size,
        d_model=TEXT_WIDTH,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return T5EncoderModel(config)


def build_tokenizer(captions: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token a word of the captions; unknown words become `<unk>`, every prompt ends in `</s>`."""
    words = sorted({word for caption in captions for word in caption.split()})
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=120,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """Flow matching: x_s = (1 - s) x_0 + s e, the model predicts e - x_0 (Lipman et al., arXiv 2210.02747)."""
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0, solver_order=2
    )
