"""A pipeline and prompts -> pictures, reproducibly: picture k of prompt p has a seed of its own, whatever the batch."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image

from surgery.errors import InputError
from surgery.finite import to_finite
from surgery.pipelines.conditions import CLASS_LABELS, PROMPT, arguments_of, conditions_of

Noise = Literal["own", "shared"]  # prompt k from the noise of seed + k, or all prompts from one generator, in turn
OWN, SHARED = "own", "shared"
NUM_FRAMES = "num_frames"
OWN_ARGUMENTS = ("self", PROMPT, CLASS_LABELS, "generator", "output_type", "return_dict")


@dataclass(frozen=True)
class Drawing:
    """One picture with the prompt and the seed that it was drawn with."""

    image: Image.Image
    prompt: str
    seed: int


def check_call(pipe: Any, call: Mapping[str, Any]) -> None:
    """Raise InputError where the pipeline's call has no such argument, `draw_pictures` sets it, or it is not finite."""
    known = inspect.signature(type(pipe).__call__).parameters
    for name in call:
        if name in OWN_ARGUMENTS:
            raise InputError(f"the argument {name} of {type(pipe).__name__} is set for every batch; leave it out")
    unknown = [name for name in call if name not in known]
    if unknown:
        names = ", ".join(name for name in known if name not in (*OWN_ARGUMENTS, "args", "kwargs"))
        raise InputError(f"{type(pipe).__name__} takes no argument {unknown[0]}; it takes {names}")
    for name, value in call.items():
        if to_finite([value]) != [value]:
            raise InputError(f"the argument {name} of {type(pipe).__name__} is {value}, and must be finite")


def draw_pictures(
    pipe: Any,
    prompts: Sequence[str],
    *,
    seed: int,
    batch_size: int,
    call: Mapping[str, Any],
    noise: Noise = "own",
    on_batch: Callable[[int], object] = lambda _: None,
) -> list[Drawing]:
    """One picture a prompt; prompt k starts from the noise of the CPU generator seeded with `seed + k`, or, where the
    noise is shared, from what the prompts before it have left of that of `seed`.

    Of a class-conditional pipeline, prompts are the names or numbers of classes. `call` are further arguments of the
    pipeline. `on_batch` is told how many pictures each batch has finished. A video of one frame is a picture.

    Raises:
        InputError: the pipeline takes no such argument, refuses a value, has no class of a prompt's name, or draws
            longer videos.
    """
    check_call(pipe, call)
    refuse_long_videos(pipe, call)
    conditions = conditions_of(pipe, prompts)
    found: list[Drawing] = []
    shared = torch.Generator().manual_seed(seed)
    for start in range(0, len(prompts), batch_size):
        batch = list(prompts[start : start + batch_size])
        seeds = [seed if noise == SHARED else seed + start + position for position in range(len(batch))]
        generators = [shared] * len(batch) if noise == SHARED else _generators_of(seeds)
        answer = _call(pipe, conditions[start : start + batch_size], generators, "pil", call)
        found.extend(Drawing(*item) for item in zip(_pictures_of(pipe, answer), batch, seeds, strict=True))
        on_batch(len(batch))
    return found


def draw_latents(pipe: Any, prompts: Sequence[str], *, seed: int, call: Mapping[str, Any]) -> torch.Tensor:
    """Where the trajectories of prompts end, on the CPU (N, values); prompt k starts from the noise of `seed + k`.

    Raises:
        InputError: as `draw_pictures`, or the pipeline hands out no latents.
    """
    check_call(pipe, call)
    refuse_long_videos(pipe, call)
    seeds = [seed + number for number in range(len(prompts))]
    answer = _call(pipe, conditions_of(pipe, prompts), _generators_of(seeds), "latent", call)
    found = getattr(answer, "images", getattr(answer, "frames", None))
    if not isinstance(found, torch.Tensor) or len(found) != len(prompts):
        raise InputError(f"{type(pipe).__name__} hands out no latents; compare its pictures, or its predictions")
    return found.detach().flatten(1).cpu()


def _generators_of(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in seeds]


def _call(
    pipe: Any, conditions: Sequence[Any], noise: list[torch.Generator], output: str, call: Mapping[str, Any]
) -> Any:
    """What a pipeline answers for a batch, each from the noise of its generator."""
    try:
        return pipe(**arguments_of(pipe, conditions, call), generator=noise, output_type=output)
    except (ValueError, TypeError, AttributeError, LookupError) as error:  # as pipelines answer to odd values
        raise InputError(f"{type(pipe).__name__} refuses the call: {error}") from error


def refuse_long_videos(pipe: Any, call: Mapping[str, Any]) -> None:
    """Raise InputError where the call is known to draw videos: nobody should wait for them."""
    known = inspect.signature(type(pipe).__call__).parameters.get(NUM_FRAMES)
    number = None if known is None else call.get(NUM_FRAMES, known.default)
    if isinstance(number, int) and number != 1:
        raise InputError(_video_text(pipe, number))


def _pictures_of(pipe: Any, answer: Any) -> Sequence[Image.Image]:
    """The pictures that a pipeline returns; of videos of one frame, that frame."""
    if hasattr(answer, "images"):
        images: Sequence[Image.Image] = answer.images
        return images
    if not hasattr(answer, "frames"):
        raise InputError(f"{type(pipe).__name__} returns neither pictures nor frames of videos")
    for frames in answer.frames:
        if len(frames) != 1:
            raise InputError(_video_text(pipe, len(frames)))
    return [frames[0] for frames in answer.frames]


def _video_text(pipe: Any, number: int) -> str:
    return (
        f"{type(pipe).__name__} draws videos of {number} frames, and pictures are drawn and compared here; give --call "
        f"{NUM_FRAMES}=1, which draws a video of one"
    )
