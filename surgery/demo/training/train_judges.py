"""Trains the bundled extractor and the bundled CLIP: `python -m surgery.demo.training.train_judges --work DIR`.

Resumable: run it again with the same `--work` after a kill. Seeded: each step draws its own random numbers. See
judges/MODEL_CARD.md.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from surgery.demo.extractor import NUM_FEATURES, EmojiExtractor
from surgery.demo.judge_files import CLIP_FOLDER, EXTRACTOR_FILE, JUDGES
from surgery.demo.pictures import load_pictures
from surgery.demo.reference import make_reference
from surgery.demo.training.augment import Limits, augment
from surgery.demo.training.emoji_clip import build_clip, save_clip, to_float16
from surgery.demo.training.resumable import TrainingSchedule, generator_for_step, train_

CPU = torch.device("cpu")
EXTRACTOR_STEPS = 1500
EXTRACTOR_BATCH = 64
EXTRACTOR_RATE = 3e-3
EXTRACTOR_LIMITS = Limits()
COSINE_SCALE = 20.0
DAMAGE_WEIGHT = 5.0
CLIP_STEPS = 1000
CLIP_BATCH = 128
CLIP_RATE = 2e-3
CLIP_LIMITS = Limits(blur_px=2.0, noise=0.15, cover_px=24.0, share=0.3)
UNKNOWN_WORDS = 0.05  # share of the words that are made unknown, so that prompts with new words are read too
MAX_LOG_SCALE = 4.6052  # ln 100, as in CLIP


class ExtractorTask(nn.Module):
    """The extractor and what teaches it: which picture it is, and how much of which damage it has."""

    def __init__(self, num_pictures: int) -> None:
        super().__init__()
        self.extractor = EmojiExtractor()
        self.anchors = nn.Parameter(torch.randn(num_pictures, NUM_FEATURES))
        self.damage = nn.Linear(NUM_FEATURES, 3)

    def forward(self, scaled: torch.Tensor, chosen: torch.Tensor, damage: torch.Tensor) -> torch.Tensor:
        """The loss of pictures (B, 3, 64, 64) in [-1, 1] that are number `chosen` (B,) with `damage` (B, 3)."""
        features = self.extractor.features_of(scaled)
        cosines = F.normalize(features) @ F.normalize(self.anchors).T
        identity = F.cross_entropy(COSINE_SCALE * cosines, chosen)
        return identity + DAMAGE_WEIGHT * F.mse_loss(self.damage(features), damage)


def optimizer_for(module: nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW; the decay acts on matrices and kernels only."""
    large = [value for value in module.parameters() if value.ndim >= 2]
    small = [value for value in module.parameters() if value.ndim < 2]
    groups = [{"params": large, "weight_decay": 0.02}, {"params": small, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    for group in optimizer.param_groups:
        group["initial_lr"] = rate
    return optimizer


def train_extractor(pixels: torch.Tensor, *, work: Path, num_steps: int, seed: int) -> EmojiExtractor:
    """Fit the extractor to `pixels` (N, 3, 64, 64) in [-1, 1]."""
    torch.manual_seed(seed)
    task = ExtractorTask(len(pixels)).to(memory_format=torch.channels_last)

    def loss_at_step(step: int) -> torch.Tensor:
        generator = generator_for_step(seed, step, CPU)
        chosen = torch.randperm(len(pixels), generator=generator)[:EXTRACTOR_BATCH]
        changed, damage = augment(pixels[chosen], EXTRACTOR_LIMITS, generator)
        loss: torch.Tensor = task(changed.contiguous(memory_format=torch.channels_last), chosen, damage)
        return loss

    average = train_(
        task,
        optimizers=[optimizer_for(task, EXTRACTOR_RATE)],
        loss_at_step=loss_at_step,
        schedule=TrainingSchedule(num_steps),
        checkpoint=work / "extractor.pt",
        ema_decay=0.995,
        label="extractor",
    )
    task.load_state_dict(average.values)
    return task.extractor.eval()


def save_extractor(extractor: EmojiExtractor, file: Path) -> None:
    """Write the weights in float16."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(to_float16(extractor.state_dict()), file)


def contrast(pictures: torch.Tensor, texts: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """CLIP's loss of pairs of unit vectors (B, C): each picture finds its text, and each text its picture."""
    logits = log_scale.clamp(max=MAX_LOG_SCALE).exp() * pictures @ texts.T
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def forget_words(ids: torch.Tensor, tokenizer: Any, generator: torch.Generator) -> torch.Tensor:
    """Make some words of (B, T) token ids unknown."""
    special = torch.tensor(tokenizer.all_special_ids)
    forgotten = (torch.rand(ids.shape, generator=generator) < UNKNOWN_WORDS) & ~torch.isin(ids, special)
    return torch.where(forgotten, tokenizer.unk_token_id, ids)


def train_clip(pixels: torch.Tensor, captions: Sequence[str], *, work: Path, num_steps: int, seed: int) -> CLIP:
    """Fit the CLIP to pairs of `pixels` (N, 3, 64, 64) in [-1, 1] and captions."""
    torch.manual_seed(seed)
    model, tokenizer = build_clip(captions)
    length = model.context_length
    ids = tokenizer(list(captions), padding="max_length", max_length=length, return_tensors="pt").input_ids
    model.to(memory_format=torch.channels_last)

    def loss_at_step(step: int) -> torch.Tensor:
        generator = generator_for_step(seed, step, CPU)
        chosen = torch.randperm(len(pixels), generator=generator)[:CLIP_BATCH]
        changed, _ = augment(pixels[chosen], CLIP_LIMITS, generator)
        pictures = model.encode_image(changed.contiguous(memory_format=torch.channels_last), normalize=True)
        texts = model.encode_text(forget_words(ids[chosen], tokenizer, generator), normalize=True)
        return contrast(pictures, texts, model.logit_scale)

    average = train_(
        model,
        optimizers=[optimizer_for(model, CLIP_RATE)],
        loss_at_step=loss_at_step,
        schedule=TrainingSchedule(num_steps),
        checkpoint=work / "clip.pt",
        ema_decay=0.995,
        label="clip",
    )
    model.load_state_dict(average.values)
    return model.eval()


def main() -> None:
    """Train both and write them, with what they see in the real emoji, to `WORK/judges`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and of the result")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--extractor-steps", type=int, default=EXTRACTOR_STEPS)
    parser.add_argument("--clip-steps", type=int, default=CLIP_STEPS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    emoji, pictures = load_pictures()
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    captions = [item.caption for item in emoji]
    started = time.monotonic()
    extractor = train_extractor(pixels, work=options.work, num_steps=options.extractor_steps, seed=options.seed)
    model = train_clip(pixels, captions, work=options.work, num_steps=options.clip_steps, seed=options.seed)
    out = options.work / JUDGES.name
    save_extractor(extractor, out / EXTRACTOR_FILE.relative_to(JUDGES))
    save_clip(model, build_clip(captions)[1], out / CLIP_FOLDER.relative_to(JUDGES))
    make_reference(out)
    print(f"wrote {out} after {(time.monotonic() - started) / 60:.1f} minutes in this run")


if __name__ == "__main__":
    main()
