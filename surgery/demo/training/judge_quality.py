"""How good the bundled judges are: the figures of judges/MODEL_CARD.md.

`python -m surgery.demo.training.judge_quality` prints them. It needs the training
pictures (the `train` extra and the font). Drawing is by the bundled pipeline.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch.nn import functional as F

from surgery.bundled import DEMO_CALL, demo_folder
from surgery.demo.extractor import extract_features, load_extractor
from surgery.demo.pictures import load_pictures
from surgery.demo.reference import load_reference
from surgery.demo.training.augment import add_noise, augment, blur
from surgery.demo.training.emoji_clip import embed_captions, embed_pictures, load_clip
from surgery.demo.training.quality import BATCH, SEED
from surgery.demo.training.train_judges import CLIP_LIMITS, EXTRACTOR_LIMITS
from surgery.metrics.feature_sets import Features, Origin
from surgery.metrics.frechet import frechet_distance

NUM_DRAWN = 200
NUM_STEPS: int = DEMO_CALL["num_inference_steps"]
AUGMENT_SEED = 2_000_000_000  # training draws from 0 to its number of steps
NOISE_LEVELS = (0.05, 0.1, 0.2, 0.4, 0.8)  # standard deviation, where white minus black is 1
BLUR_LEVELS = (0.5, 1.0, 2.0, 4.0)  # standard deviation in pixels


@dataclass(frozen=True)
class Retrieval:
    """Shares of pictures whose own caption is the nearest of all, and of captions whose own picture is."""

    num_pictures: int
    num_choices: int
    picture_to_caption: float
    caption_to_picture: float
    own_cosine: float
    other_cosine: float


@dataclass(frozen=True)
class Damage:
    """What one level of damage does to all the real pictures."""

    level: float
    frechet_distance: float
    feature_cosine: float
    clip_cosine: float


@dataclass(frozen=True)
class JudgeQuality:
    """All figures; `extractor_*` are shares of pictures whose nearest real picture, by cosine, is their own."""

    real: Retrieval
    augmented: Retrieval
    drawn: Retrieval
    extractor_augmented: float
    extractor_drawn: float
    cosine_of_two_emoji: float
    frechet_of_halves: float
    noise: tuple[Damage, ...]
    blur: tuple[Damage, ...]


def to_bytes(scaled: torch.Tensor) -> torch.Tensor:
    """Pictures in [-1, 1] -> uint8."""
    return ((scaled.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def draw_pictures(pipe: Any, prompts: Sequence[str], *, seed: int = SEED, num_steps: int = NUM_STEPS) -> torch.Tensor:
    """uint8 pictures (N, 3, 64, 64) by the bundled pipeline; prompt k has the noise of `seed + k`."""
    found = []
    for start in range(0, len(prompts), BATCH):
        batch = list(prompts[start : start + BATCH])
        noise = [torch.Generator().manual_seed(seed + start + k) for k in range(len(batch))]
        call = {**DEMO_CALL, "num_inference_steps": num_steps}
        drawn = pipe(batch, generator=noise, output_type="pt", **call).images
        found.append(to_bytes(drawn * 2 - 1))
    return torch.cat(found)


def retrieve(pictures: torch.Tensor, captions: torch.Tensor, chosen: torch.Tensor, real: torch.Tensor) -> Retrieval:
    """Retrieval of unit vectors: `pictures` (K, C) of the captions number `chosen` (K,) among all `captions` (N, C).

    The captions look for their picture among the real ones (N, C), in which these take the place of their own.
    """
    gallery = real.clone()
    gallery[chosen] = pictures
    cosines = pictures @ captions.T  # K x N
    own = cosines[torch.arange(len(chosen)), chosen]
    others = (cosines.sum() - own.sum()) / (cosines.numel() - len(own))
    return Retrieval(
        num_pictures=len(chosen),
        num_choices=len(captions),
        picture_to_caption=share_of(cosines.argmax(1), chosen),
        caption_to_picture=share_of((captions[chosen] @ gallery.T).argmax(1), chosen),
        own_cosine=float(own.mean()),
        other_cosine=float(others),
    )


def share_of(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """How often two vectors of indices agree."""
    return float((found == wanted).double().mean())


def distance_between(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The Frechet distance of features (N, C) and (M, C)."""
    return frechet_distance(Features(ours.numpy(), Origin()), Features(theirs.numpy(), Origin()))


def nearest_share(features: torch.Tensor, real: torch.Tensor, chosen: torch.Tensor) -> float:
    """The share of features (K, C) whose nearest of the real ones (N, C), by cosine, is number `chosen` (K,)."""
    return share_of((F.normalize(features) @ F.normalize(real).T).argmax(1), chosen)


def measure_judges(pipe: Any, *, num_drawn: int = NUM_DRAWN) -> JudgeQuality:
    """All figures of the bundled judges."""
    emoji, arrays = load_pictures()
    real = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    scaled = real.float() / 127.5 - 1
    extractor, (model, preprocess, tokenizer) = load_extractor(), load_clip()
    features = load_reference().features
    captions = embed_captions(model, tokenizer, [item.caption for item in emoji])
    pictures = embed_pictures(model, preprocess, real)
    everything = torch.arange(len(emoji))

    def retrieval_of(changed: torch.Tensor, chosen: torch.Tensor) -> Retrieval:
        return retrieve(embed_pictures(model, preprocess, changed), captions, chosen, pictures)

    def damage_of(level: float, changed: torch.Tensor) -> Damage:
        found = extract_features(extractor, changed)
        clip_cosines = (embed_pictures(model, preprocess, changed) * captions).sum(1)
        cosine = F.cosine_similarity(found, features).mean()
        return Damage(level, distance_between(found, features), float(cosine), float(clip_cosines.mean()))

    generator = torch.Generator().manual_seed(AUGMENT_SEED)
    for_clip = to_bytes(augment(scaled, CLIP_LIMITS, generator)[0])
    for_extractor = to_bytes(augment(scaled, EXTRACTOR_LIMITS, generator)[0])
    chosen = torch.tensor(random.Random(SEED).sample(range(len(emoji)), num_drawn))
    drawn = draw_pictures(pipe, [emoji[index].caption for index in chosen.tolist()])
    cosines = F.normalize(features) @ F.normalize(features).T
    noise = (torch.Generator().manual_seed(AUGMENT_SEED + k) for k in range(len(NOISE_LEVELS)))
    sizes = torch.ones(len(real))
    halves = np.random.default_rng(SEED).permutation(len(features))
    return JudgeQuality(
        real=retrieval_of(real, everything),
        augmented=retrieval_of(for_clip, everything),
        drawn=retrieval_of(drawn, chosen),
        extractor_augmented=nearest_share(extract_features(extractor, for_extractor), features, everything),
        extractor_drawn=nearest_share(extract_features(extractor, drawn), features, chosen),
        cosine_of_two_emoji=float((cosines.sum() - cosines.trace()) / (cosines.numel() - len(cosines))),
        frechet_of_halves=distance_between(features[halves[::2]], features[halves[1::2]]),
        noise=tuple(
            damage_of(level, to_bytes(add_noise(scaled, sizes * level, source)))
            for level, source in zip(NOISE_LEVELS, noise, strict=True)
        ),
        blur=tuple(damage_of(level, to_bytes(blur(scaled, sizes * level))) for level in BLUR_LEVELS),
    )


def main() -> None:
    """Measure the bundled judges and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawn", type=int, default=NUM_DRAWN, help="how many prompts to draw (default: 200)")
    options = parser.parse_args()
    pipe = DiffusionPipeline.from_pretrained(demo_folder())
    pipe.set_progress_bar_config(disable=True)
    print(json.dumps(asdict(measure_judges(pipe, num_drawn=options.drawn)), indent=2))


if __name__ == "__main__":
    main()
