"""The options that all commands share which run a pipeline: prompts, the arguments of its call, where it runs."""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from surgery.errors import InputError
from surgery.experiment.prompts import read_prompt_file


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


PromptOption = Annotated[list[str] | None, typer.Option("--prompt", "-p", help="A prompt; may be given several times.")]
PromptsOption = Annotated[
    Path | None,
    typer.Option(help="Prompts: a text file, a .csv (prompt, caption or text), or COCO captions (.json)."),
]
SampleOption = Annotated[int | None, typer.Option(min=1, help="Draw so many of the prompts, by --sample-seed.")]
SampleSeedOption = Annotated[int, typer.Option(help="Of Python's random.sample over prompts.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Denoising steps.")]
GuidanceOption = Annotated[
    float | None, typer.Option(min=0, callback=_finite, help="Scale of classifier-free guidance.")
]
HeightOption = Annotated[int | None, typer.Option(min=1, help="Height in pixels.")]
WidthOption = Annotated[int | None, typer.Option(min=1, help="Width in pixels.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Prompt k starts from the noise of seed + k.")]
NoiseOption = Annotated[
    Literal["own", "shared"],
    typer.Option(
        help="own: prompt k starts from the noise of seed + k; shared: one generator goes through all prompts in turn."
    ),
]
BatchOption = Annotated[int, typer.Option(min=1, help="Prompts drawn at once; part of the recipe.")]
DtypeOption = Annotated[str, typer.Option(help="float32, bfloat16, float16; auto: float32 on the CPU, else bfloat16.")]
ColumnsOption = Annotated[
    Literal["prompts", "variants"], typer.Option(help="What the columns of the contact sheet are.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...; auto: a GPU where there is one.")]
CallOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Another argument of the pipeline; the value is JSON, or else text."),
]


def pipeline_arguments(
    call: list[str] | None, steps: int | None, guidance_scale: float | None, height: int | None, width: int | None
) -> dict[str, Any]:
    """The arguments of the pipeline's call that are given; options with a name of their own count before `--call`.

    Raises:
        InputError: a pair of `--call` has no equals sign.
    """
    named = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "height": height, "width": width}
    return {**read_call_arguments(call or []), **{name: value for name, value in named.items() if value is not None}}


def read_prompts(
    given: list[str], file: Path | None, sample: int | None = None, sample_seed: int = 0
) -> tuple[str, ...]:
    """The prompts of the call and of a file, in this order; with `sample`, so many of the file's, drawn by the seed.

    Raises:
        InputError: there are none, the file can't be read, or it holds fewer than are to be drawn.
    """
    if file is not None:
        return (*given, *read_prompt_file(file, sample=sample, seed=sample_seed).prompts)
    if sample is not None:
        raise InputError("--sample draws from the prompts of a file; give --prompts FILE")
    if not given:
        raise InputError('there is no prompt; give --prompt "red apple", or --prompts FILE')
    return tuple(given)


def read_call_arguments(pairs: list[str]) -> dict[str, Any]:
    """`["clean_caption=false"]` -> `{"clean_caption": False}`; what is no JSON stays text.

    Raises:
        InputError: a pair has no equals sign.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip().isidentifier():
            raise InputError(f'--call takes KEY=VALUE, not "{pair}"; write it like --call clean_caption=false')
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value
    return found
