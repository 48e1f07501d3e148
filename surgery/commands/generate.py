"""`surgery generate SPEC|FOLDER|MODEL`: pictures with and without surgery, from the same noise."""

from pathlib import Path
from typing import Annotated

import typer

from surgery.commands.drawing_options import (
    BatchOption,
    CallOption,
    ColumnsOption,
    DeviceOption,
    DtypeOption,
    GuidanceOption,
    HeightOption,
    NoiseOption,
    PromptOption,
    PromptsOption,
    SampleOption,
    SampleSeedOption,
    SeedOption,
    StepsOption,
    WidthOption,
    pipeline_arguments,
    read_prompts,
)
from surgery.commands.output import JsonFlag, QuietFlag, print_json, say, told_when_stopped
from surgery.commands.spec_options import POINT_HELP, MeansOption, ModelOption, refuse_stdin_twice
from surgery.progress import quietly


def run(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC|FOLDER|MODEL...",
            help=f"Specs of one model ({POINT_HELP}), folders compiled from it, and stock models beside it; or one "
            "model by itself.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; it must be new or empty.")],
    prompt: PromptOption = None,
    prompts: PromptsOption = None,
    sample: SampleOption = None,
    sample_seed: SampleSeedOption = 0,
    model: ModelOption = None,
    profile: MeansOption = None,
    steps: StepsOption = None,
    guidance_scale: GuidanceOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    seed: SeedOption = 0,
    noise: NoiseOption = "own",
    batch_size: BatchOption = 8,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    call: CallOption = None,
    baseline: Annotated[bool, typer.Option(help="Draw the unedited model as well.")] = True,
    columns: ColumnsOption = "prompts",
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> None:
    """Draw pictures of a model and of its variants: same prompts, same noise, a labelled contact sheet."""
    refuse_stdin_twice(targets)
    arguments = pipeline_arguments(call, steps, guidance_scale, height, width)
    from surgery.experiment.gallery import GalleryRequest, draw_gallery

    request = GalleryRequest(
        targets=tuple(targets),
        prompts=read_prompts(prompt or [], prompts, sample, sample_seed),
        out=out,
        model=model,
        profile=profile,
        seed=seed,
        noise=noise,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        call=arguments,
        baseline=baseline,
        columns=columns,
        force=force,
    )
    with quietly(quiet), told_when_stopped(f"nothing was written to {out}, which is there whole or not at all"):
        gallery = draw_gallery(request)
    if json:
        print_json(gallery.to_json())
    else:
        say(gallery.describe())
