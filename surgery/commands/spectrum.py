"""`surgery spectrum MODEL|SPEC...`: frequency analysis of denoising, and of what surgery does to pictures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from surgery.commands.drawing_options import (
    BatchOption,
    CallOption,
    DeviceOption,
    DtypeOption,
    GuidanceOption,
    HeightOption,
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
            metavar="MODEL|SPEC...",
            help=f"One model; or specs of one ({POINT_HELP}), or compiled folders of one, whose pictures are compared "
            "with those of the model as it is, band by band.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for numbers and figures; it must be new or empty.")],
    prompt: PromptOption = None,
    prompts: PromptsOption = None,
    sample: SampleOption = None,
    sample_seed: SampleSeedOption = 0,
    bands: Annotated[
        str | None,
        typer.Option(
            metavar="N|EDGES",
            help="How many octaves, or upper edges in cycles per picture (2,4,8,16); by itself as many octaves as the "
            "pictures have.",
        ),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option(
            help="Decode the clean picture that is predicted at each step, the model's and the null's; without it the "
            "latents alone are looked at."
        ),
    ] = True,
    model: ModelOption = None,
    profile: MeansOption = None,
    steps: StepsOption = None,
    guidance_scale: GuidanceOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    seed: SeedOption = 0,
    batch_size: BatchOption = 8,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    call: CallOption = None,
    format: Annotated[Literal["png", "svg"], typer.Option(help="Of the figures.")] = "png",  # noqa: A002  (the option)
    theme: Annotated[Literal["light", "dark", "both"], typer.Option(help="Paper of the figures.")] = "light",
    force: Annotated[
        bool, typer.Option("--force", help="Write into a folder that is not empty; what was written there gives way.")
    ] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> None:
    """Power in bands of frequency while a model samples, beside the null; and which bands surgery damages.

    The null is the model's own last latents noised forward: any noising uncovers low frequencies first, so that only
    what differs from it says something of the model. A band has settled where its power stays within 5% of its end.
    """
    refuse_stdin_twice(targets)
    arguments = pipeline_arguments(call, steps, guidance_scale, height, width)
    from surgery.experiment.spectrum import SpectrumRequest
    from surgery.report.spectrum_folder import spectra_to_json, spectrum_into, spectrum_text

    request = SpectrumRequest(
        targets=tuple(targets),
        prompts=read_prompts(prompt or [], prompts, sample, sample_seed),
        out=out,
        model=model,
        profile=profile,
        seed=seed,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        call=arguments,
        force=force,
        bands=bands,
        pictures=pictures,
    )
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark") if theme == "both" else (theme,)
    with quietly(quiet), told_when_stopped(f"nothing was written to {out}, which is there whole or not at all"):
        spectra, written = spectrum_into(request, file_format=format, themes=themes)
    if json:
        print_json({"files": [str(file) for file in written], **spectra_to_json(spectra)})
    else:
        say("\n".join([spectrum_text(spectra), *map(str, written)]))
