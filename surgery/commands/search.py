"""`surgery search MODEL`: the best of what may be left out within a budget, by measured damage."""

from pathlib import Path
from typing import Annotated

import typer

from surgery.commands.drawing_options import (
    BatchOption,
    CallOption,
    DeviceOption,
    DtypeOption,
    GuidanceOption,
    HeightOption,
    SampleOption,
    SampleSeedOption,
    SeedOption,
    StepsOption,
    WidthOption,
    pipeline_arguments,
)
from surgery.commands.engine_options import (
    BYTES_A_GB,
    DEFAULT_GB,
    AddressOption,
    EngineOption,
    MemoryOption,
    ThreadsOption,
    WorkersOption,
)
from surgery.commands.output import JsonFlag, QuietFlag, print_json, say, told_when_stopped
from surgery.progress import quietly


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A pipeline: a hub id, a folder, or demo.")],
    prompts: Annotated[
        Path, typer.Option(help="Prompts: every other one to choose by, the others to report on. A text file, or .csv.")
    ],
    budget: Annotated[
        str,
        typer.Option(
            metavar="KIND=NUMBER|SHARE%",
            help="What may be left, at most, of blocks, parameters, flops, executions (over the sampler's steps), or "
            "latency (by a measured table): blocks=9, parameters=75%.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; an interrupted search goes on in it.")],
    units: Annotated[
        str, typer.Option(metavar="blocks|components|both", help="What is left out; of a component, its output.")
    ] = "blocks",
    forbid: Annotated[
        list[str] | None, typer.Option(metavar="SELECTOR", help="Layers or components to leave alone; repeatable.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="greedy|beam:W|exhaustive",
            help="greedy: one after the other; beam:8: from the 8 best sets; exhaustive: all sets, where they are few.",
        ),
    ] = "greedy",
    windows: Annotated[
        int, typer.Option(min=1, help="Choose what is left out in each of so many windows of the noise range.")
    ] = 1,
    objective: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="denoising-error; trajectory-error: of the final latents, from the same noise; ssim: 1 - SSIM of the "
            "pictures.",
        ),
    ] = "denoising-error",
    weights: Annotated[
        str | None, typer.Option(metavar="W,W,...", help="Of the timestep bins, from clean to noise; else equal ones.")
    ] = None,
    bins: Annotated[int, typer.Option(min=1, help="Timesteps of the denoising error.")] = 10,
    max_sets: Annotated[int, typer.Option(min=1, help="Refuse an exhaustive search of more sets.")] = 2_000,
    sample: SampleOption = None,
    sample_seed: SampleSeedOption = 0,
    memory: MemoryOption = DEFAULT_GB,
    engine: EngineOption = "serial",
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    address: AddressOption = None,
    steps: StepsOption = None,
    guidance_scale: GuidanceOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    seed: SeedOption = 0,
    batch_size: BatchOption = 8,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    call: CallOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace results of another request.")] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> None:
    """Search what to leave out within a budget: measured on half of the prompts, reported on the other half.

    Writes the specs of the front with their reasons, its table, figure and page.
    """
    arguments = pipeline_arguments(call, steps, guidance_scale, height, width)
    from surgery.experiment.engine_choice import EngineChoice
    from surgery.experiment.prompts import read_prompt_file
    from surgery.experiment.search.request import SearchRequest
    from surgery.report.search_folder import search_into, search_to_json
    from surgery.report.search_text import search_text

    request = SearchRequest(
        model=model,
        prompts=read_prompt_file(prompts, sample=sample, seed=sample_seed).prompts,
        out=out,
        budget=budget,
        units=units,
        forbid=tuple(forbid or ()),
        method=method,
        windows=windows,
        objective=objective,
        weights=weights,
        bins=bins,
        max_sets=max_sets,
        memory=round(memory * BYTES_A_GB),
        engine=EngineChoice(engine, workers, threads, address),
        seed=seed,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        call=arguments,
    )
    kept = f"what was measured is kept in {out}; the same command goes on from there"
    with quietly(quiet), told_when_stopped(kept):
        search, written = search_into(request, force=force)
    if json:
        print_json({**search_to_json(search), "files": [str(path) for path in written]})
        return
    say(search_text(search))
    say("\n".join(str(path) for path in written))
