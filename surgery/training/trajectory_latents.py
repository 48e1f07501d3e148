"""Prompts -> what a pipeline makes of them in a few steps, before it is decoded: clean latents to learn from.

They are in the shape in which the transformer is given them (packed, where the pipeline packs).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from surgery.errors import InputError, RefusedError
from surgery.pipelines.conditions import arguments_of, conditions_of
from surgery.pipelines.replaced import replaced


@torch.no_grad()
def draw_latents(
    pipe: Any, prompts: Sequence[str], seeds: Sequence[int], call: Mapping[str, Any], shape: Sequence[int]
) -> torch.Tensor:
    """The ends of the trajectories (B, *shape) of these prompts, in float32; each starts from the noise of its seed.

    Raises:
        InputError: the pipeline refuses the call.
        RefusedError: its scheduler takes samples of another shape than its transformer.
    """
    last: list[torch.Tensor] = []
    take_step = pipe.scheduler.step

    @functools.wraps(take_step)  # pipelines look at its signature
    def step(*args: Any, **kwargs: Any) -> Any:
        answer = take_step(*args, **kwargs)
        last[:] = [answer[0] if isinstance(answer, tuple) else answer.prev_sample]
        return answer

    noise = [torch.Generator().manual_seed(seed) for seed in seeds]
    given = arguments_of(pipe, conditions_of(pipe, prompts), call)
    with replaced(pipe.scheduler, "step", step):
        try:
            pipe(**given, generator=noise, output_type="latent")
        except (ValueError, TypeError, AttributeError, LookupError) as error:  # as pipelines answer to odd values
            raise InputError(f"{type(pipe).__name__} refuses the call: {error}") from error
    found = last[0][: len(prompts)].float().cpu()  # DiT's samples come twice, once a branch of guidance
    if tuple(found.shape) != (len(prompts), *shape):
        raise RefusedError(
            f"the samples of {type(pipe).__name__} are {tuple(found.shape)}, and its transformer is given "
            f"{(len(prompts), *shape)}; how they are packed is not known"
        )
    return found
