"""How good the bundled pipeline is, and how much each of its blocks matters: `python -m surgery.demo.training.quality`.

Needs the training pictures (the `train` extra and the font).
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline

from surgery.bundled import DEMO_CALL, demo_folder
from surgery.demo.pictures import Emoji, load_pictures
from surgery.graph.variant import build_variant
from surgery.plan.plan import Plan
from surgery.plan.schedule import Layer, Schedule
from surgery.progress import show_progress

NUM_PROMPTS = 200
NUM_DAMAGE_PROMPTS = 32
BATCH = 25
SEED = 0


@dataclass(frozen=True)
class Quality:
    """`nearest_is_own`: the share of prompts whose picture is nearest to the prompt's own emoji among all of them.

    `damage[i]`: the relative error ||z - z_i|| / ||z|| of the final latents when block i is skipped, shared noise,
    mean over prompts.
    """

    num_prompts: int
    num_pictures: int
    nearest_is_own: float
    damage: tuple[float, ...]


def draw_latents(pipe: Any, prompts: Sequence[str], *, seed: int = SEED) -> torch.Tensor:
    """The final scaled latents (N, 4, 16, 16); prompt k has the noise of `seed + k`."""
    found = []
    for start in range(0, len(prompts), BATCH):
        batch = list(prompts[start : start + BATCH])
        noise = [torch.Generator().manual_seed(seed + start + k) for k in range(len(batch))]
        found.append(pipe(batch, generator=noise, output_type="latent", **DEMO_CALL).images)
    return torch.cat(found)


@torch.no_grad()
def nearest_pictures(pipe: Any, latents: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """For each latent (N, 4, 16, 16), drawn and encoded again, the index of the nearest of `pixels` (M, 3, 64, 64)."""
    scale = pipe.vae.config.scaling_factor
    drawn = torch.cat([pipe.vae.decode(part / scale).sample.clamp(-1, 1) for part in latents.split(50)])
    ours = torch.cat([pipe.vae.encode(part).latent_dist.mean.flatten(1) for part in drawn.split(50)])
    theirs = torch.cat([pipe.vae.encode(part).latent_dist.mean.flatten(1) for part in pixels.split(50)])
    return torch.cdist(ours, theirs).argmin(1)


def nearest_share(pipe: Any, emoji: Sequence[Emoji], pixels: torch.Tensor, *, num_prompts: int = NUM_PROMPTS) -> float:
    """The share of prompts whose picture is nearest to their own emoji; prompts are drawn with a fixed seed."""
    chosen = random.Random(SEED).sample(range(len(emoji)), num_prompts)
    latents = draw_latents(pipe, [emoji[index].caption for index in chosen])
    nearest = nearest_pictures(pipe, latents, pixels)
    return float((nearest == torch.tensor(chosen)).float().mean())


def skip_plan(num_blocks: int, skipped: int) -> Plan:
    """The plan that leaves one block of the bundled transformer out."""
    layers = tuple(Layer(index) for index in range(num_blocks) if index != skipped)
    return Plan("PixArtTransformer2DModel", (Schedule("transformer_blocks", num_blocks, layers),))


def skip_damage(pipe: Any, prompts: Sequence[str]) -> tuple[float, ...]:
    """The damage of skipping each block in turn; see `Quality`."""
    from surgery.anatomy.from_model import read_anatomy

    original = pipe.transformer
    anatomy = read_anatomy(original)
    num_blocks = len(original.transformer_blocks)
    baseline = draw_latents(pipe, prompts).flatten(1)
    damage = []
    with show_progress(num_blocks, unit="block", label="skipping each block") as meter:
        for index in range(num_blocks):
            pipe.register_modules(transformer=build_variant(original, skip_plan(num_blocks, index), anatomy))
            error = (draw_latents(pipe, prompts).flatten(1) - baseline).norm(dim=1) / baseline.norm(dim=1)
            damage.append(float(error.mean()))
            meter.advance(1)
    pipe.register_modules(transformer=original)
    return tuple(damage)


def measure(pipe: Any, *, num_prompts: int = NUM_PROMPTS) -> Quality:
    """Both figures, of one pipeline."""
    emoji, pictures = load_pictures()
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    share = nearest_share(pipe, emoji, pixels, num_prompts=num_prompts)
    chosen = random.Random(SEED).sample(emoji, NUM_DAMAGE_PROMPTS)
    damage = skip_damage(pipe, [item.caption for item in chosen])
    return Quality(num_prompts, len(emoji), share, damage)


def main() -> None:
    """Measure the bundled pipeline and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=NUM_PROMPTS, help="how many prompts (default: 200)")
    options = parser.parse_args()
    pipe = DiffusionPipeline.from_pretrained(demo_folder())
    pipe.set_progress_bar_config(disable=True)
    print(json.dumps(asdict(measure(pipe, num_prompts=options.prompts)), indent=2))


if __name__ == "__main__":
    main()
