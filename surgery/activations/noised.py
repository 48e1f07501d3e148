"""A picture with a caption, noised at one timestep -> one measured forward, as in training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from surgery.activations.recorder import Recorder
from surgery.activations.trajectories import watched
from surgery.pipelines.encoded import encode_picture
from surgery.pipelines.guidance import CONDITIONAL, Guidance
from surgery.pipelines.noised import picture_size, predict_noised


@dataclass(frozen=True)
class Sample:
    """A picture with one of its captions; `share` of the noise range, 0 clean, 1 pure noise; `seed` of its noise."""

    image: Image.Image
    caption: str
    share: float
    seed: int


def measure_noised(
    pipe: Any, recorder: Recorder, sample: Sample, call: Mapping[str, Any], on_step: Callable[[], None] = lambda: None
) -> None:
    """Measure one forward of the transformer on a noised picture, without classifier-free guidance.

    Raises:
        RefusedError: the pipeline's pictures are no (batch, channels, height, width) latents.
        InputError: the pipeline refuses the call, or a layer gives values that are no finite numbers.
    """
    generator = torch.Generator().manual_seed(sample.seed)
    height, width = picture_size(pipe, call)
    clean = encode_picture(pipe, sample.image, height, width, generator)
    noise = torch.randn(clean.shape, generator=generator)
    with watched(pipe, recorder, Guidance(((CONDITIONAL, CONDITIONAL),))) as padding:
        padding.start([sample.caption])
        predict_noised(pipe, clean, noise, sample.share, [sample.caption], call)
        recorder.settle(sample.share)
        on_step()
    recorder.finish_trajectory()
