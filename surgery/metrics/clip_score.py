"""Pictures and their prompts: the cosine of CLIP's embeddings, by open_clip (Hessel et al. 2021, arXiv 2104.08718).

What is kept is the raw cosine of each picture; tables show it times 100. It is neither clipped at zero nor times 2.5,
as the paper's is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surgery.errors import InputError
from surgery.metrics.clip_model import ClipModel
from surgery.metrics.feature_sets import Array
from surgery.metrics.pictures import PictureSet


@dataclass(frozen=True)
class ClipScores:
    """`cosines` (N,), one a picture; `cut` are the prompts of which the model read the beginning only."""

    cosines: Array
    cut: tuple[str, ...]


def clip_scores(model: ClipModel, pictures: PictureSet, prompts: Sequence[str], *, batch_size: int = 32) -> ClipScores:
    """The cosine of each picture's embedding with that of its own prompt; prompts that repeat are embedded once.

    Raises:
        InputError: there are not as many prompts as pictures.
    """
    if len(prompts) != len(pictures):
        raise InputError(f"{len(pictures)} pictures can't be paired with {len(prompts)} prompts")
    known = list(dict.fromkeys(prompts))
    texts = dict(zip(known, embed_prompts(model, known, batch_size), strict=True))
    images = np.concatenate([model.embed_pictures(batch) for batch in pictures.batches(batch_size)])
    cosines = (images.astype(np.float64) * np.stack([texts[prompt] for prompt in prompts])).sum(1)
    return ClipScores(cosines, model.cut(known))


def embed_prompts(model: ClipModel, prompts: Sequence[str], batch_size: int) -> Array:
    """Embeddings of length 1, (N, channels), float64."""
    starts = range(0, len(prompts), batch_size)
    found = [model.embed_prompts(prompts[start : start + batch_size]) for start in starts]
    return np.concatenate(found).astype(np.float64)
