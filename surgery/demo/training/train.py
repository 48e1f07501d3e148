"""Trains the bundled pipeline from nothing: `python -m surgery.demo.training.train --work DIR` (see MODEL_CARD.md).

Resumable: run it again with the same `--work` after a kill. Seeded: each step draws its own random numbers.
"""

import argparse
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from surgery.demo.pictures import load_pictures
from surgery.demo.training.architecture import (
    build_autoencoder,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
)
from surgery.demo.training.assemble import assemble_pipeline, save_pipeline
from surgery.demo.training.resumable import TrainingSchedule, generator_for_step, train_

AUTOENCODER_STEPS = 2400
AUTOENCODER_BATCH = 16
AUTOENCODER_RATE = 2e-3
KL_WEIGHT = 5e-4
TRANSFORMER_STEPS = 6500
TRANSFORMER_BATCH = 64
TRANSFORMER_RATE = 1e-3
CAPTION_DROPOUT = 0.1  # share of empty prompts, for classifier-free guidance


class Denoiser(nn.Module):
    """The text encoder and the transformer, trained as one module."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(vocabulary_size)
        self.transformer = build_transformer()

    def forward(self, noisy: torch.Tensor, sigma: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, 4, 16, 16) latents at noise level sigma (B,) in [0, 1], token ids and mask (B, T) -> e - x_0."""
        states = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        output = self.transformer(
            noisy,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            timestep=sigma * 1000.0,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )
        prediction: torch.Tensor = output[0]
        return prediction


def train_autoencoder(pixels: torch.Tensor, *, work: Path, num_steps: int, seed: int) -> AutoencoderKL:
    """Fit the autoencoder to `pixels` (N, 3, 64, 64) in [-1, 1]: L1 + L2 + a light KL term."""
    torch.manual_seed(seed)
    model = build_autoencoder().to(pixels.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=AUTOENCODER_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    optimizer.param_groups[0]["initial_lr"] = AUTOENCODER_RATE

    def loss_at_step(step: int) -> torch.Tensor:
        generator = generator_for_step(seed, step, pixels.device)
        chosen = torch.randint(len(pixels), (AUTOENCODER_BATCH,), generator=generator, device=pixels.device)
        batch = pixels[chosen].contiguous(memory_format=torch.channels_last)
        posterior = model.encode(batch).latent_dist
        drawn = model.decode(posterior.sample(generator)).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return F.l1_loss(drawn, batch) + F.mse_loss(drawn, batch) + KL_WEIGHT * kl

    average = train_(
        model,
        optimizers=[optimizer],
        loss_at_step=loss_at_step,
        schedule=TrainingSchedule(num_steps),
        checkpoint=work / "autoencoder.pt",
        ema_decay=0.998,
        label="autoencoder",
    )
    model.load_state_dict(average.values)
    return model.eval()


@torch.no_grad()
def encode_pictures(model: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """The posterior means of all pictures, (N, 4, 16, 16), unscaled."""
    return torch.cat([model.encode(batch).latent_dist.mean for batch in pixels.split(64)])


def optimizers_for(denoiser: Denoiser, *, rate: float) -> list[torch.optim.Optimizer]:
    """One AdamW; the decay acts on matrices only."""
    matrices = [value for value in denoiser.parameters() if value.ndim >= 2]
    vectors = [value for value in denoiser.parameters() if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    for group in optimizer.param_groups:
        group["initial_lr"] = rate
    return [optimizer]


def train_denoiser(
    latents: torch.Tensor, captions: list[str], *, work: Path, num_steps: int, seed: int, use_compiler: bool = True
) -> Denoiser:
    """Fit text encoder and transformer to scaled `latents` (N, 4, 16, 16) by flow matching."""
    torch.manual_seed(seed)
    device = latents.device
    tokenizer = build_tokenizer(captions)
    tokens = tokenizer([*captions, ""], padding=True, return_tensors="pt").to(device)
    denoiser = Denoiser(len(tokenizer)).to(device)
    nn.init.zeros_(denoiser.transformer.proj_out.weight)
    nn.init.zeros_(denoiser.transformer.proj_out.bias)
    compiled = torch.compile(denoiser) if use_compiler else denoiser

    def loss_at_step(step: int) -> torch.Tensor:
        generator = generator_for_step(seed, step, device)
        chosen = torch.randint(len(latents), (TRANSFORMER_BATCH,), generator=generator, device=device)
        dropped = torch.rand(TRANSFORMER_BATCH, generator=generator, device=device) < CAPTION_DROPOUT
        rows = torch.where(dropped, len(captions), chosen)
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=generator, device=device)
        sigma = torch.sigmoid(torch.randn(TRANSFORMER_BATCH, generator=generator, device=device) * 1.2 + 0.5)
        share = sigma[:, None, None, None]
        noisy = (1 - share) * clean + share * noise
        predicted = compiled(noisy, sigma, tokens.input_ids[rows], tokens.attention_mask[rows])
        return F.mse_loss(predicted, noise - clean)

    average = train_(
        denoiser,
        optimizers=optimizers_for(denoiser, rate=TRANSFORMER_RATE),
        loss_at_step=loss_at_step,
        schedule=TrainingSchedule(num_steps),
        checkpoint=work / "denoiser.pt",
        ema_decay=0.999,
        label="transformer",
    )
    denoiser.load_state_dict(average.values)
    return denoiser.eval()


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def main() -> None:
    """Train both parts and write the pipeline to `WORK/pipeline`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and of the result")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU where there is one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--autoencoder-steps", type=int, default=AUTOENCODER_STEPS)
    parser.add_argument("--transformer-steps", type=int, default=TRANSFORMER_STEPS)
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compile the model first (on a CPU this needs a C++ compiler)",
    )
    options = parser.parse_args()
    device = choose_device(options.device)
    options.work.mkdir(parents=True, exist_ok=True)
    emoji, pictures = load_pictures()
    print(f"training on {device} with {len(emoji)} pictures; checkpoints every minute in {options.work}", flush=True)
    started = time.monotonic()
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
    captions = [item.caption for item in emoji]
    autoencoder = train_autoencoder(pixels, work=options.work, num_steps=options.autoencoder_steps, seed=options.seed)
    latents = encode_pictures(autoencoder, pixels)
    scale = float(latents.std())
    denoiser = train_denoiser(
        latents / scale,
        captions,
        work=options.work,
        num_steps=options.transformer_steps,
        seed=options.seed,
        use_compiler=options.compile,
    )
    pipe = assemble_pipeline(autoencoder.cpu(), denoiser.cpu(), captions, latent_scale=scale)
    save_pipeline(pipe, options.work / "pipeline")
    print(f"wrote {options.work / 'pipeline'} after {(time.monotonic() - started) / 60:.0f} minutes in this run")


if __name__ == "__main__":
    main()
