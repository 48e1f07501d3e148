"""`surgery evaluate SPEC|FOLDER...`: what surgery did to the pictures, in numbers with intervals and controls."""

from pathlib import Path
from typing import Annotated, Literal

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
from surgery.commands.spec_options import POINT_HELP, MeansOption, ModelOption, refuse_stdin_twice
from surgery.experiment.metric_table import list_metrics
from surgery.progress import quietly


def run(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC|FOLDER...",
            help=f"Specs of one model ({POINT_HELP}), folders compiled from it, trained on since or not, and "
            "stock models beside it.",
        ),
    ],
    prompts: Annotated[
        Path, typer.Option(help="Prompts: a text file, a .csv (prompt, caption or text), or COCO captions (.json).")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; an interrupted run goes on in it.")],
    pictures: Annotated[
        Path | None, typer.Option(help="The folder of COCO's pictures; they are the reference.")
    ] = None,
    sample: SampleOption = None,
    sample_seed: SampleSeedOption = 0,
    reference: Annotated[
        Path | None, typer.Option(help="Real pictures: a folder, or a file of features or statistics.")
    ] = None,
    crop: Annotated[
        int | None, typer.Option(min=1, help="Scale and crop the reference's pictures to this size.")
    ] = None,
    save_reference: Annotated[
        Path | None,
        typer.Option(help="Write the reference for other runs: features (.safetensors), or statistics (.npz)."),
    ] = None,
    model: ModelOption = None,
    profile: MeansOption = None,
    extractor: Annotated[
        list[str] | None,
        typer.Option(
            help="auto (the default), none, bundled, inception, dinov2:FOLDER, or a torch-fidelity class MODULE:CLASS. "
            "May be given several times; the first also pairs pictures."
        ),
    ] = None,
    extractor_weights: Annotated[Path | None, typer.Option(help="Its file of weights.")] = None,
    clip: Annotated[
        str,
        typer.Option(help="auto, none, bundled, an open_clip name such as ViT-B-32-quickgelu, or local-dir:FOLDER."),
    ] = "auto",
    clip_weights: Annotated[Path | None, typer.Option(help="Its file of weights.")] = None,
    clip_tag: Annotated[
        str | None, typer.Option(help="open_clip's tag of these weights, which says how pictures are prepared.")
    ] = None,
    cmmd: Annotated[bool, typer.Option("--cmmd", help="CMMD to the reference, by the image side of --clip.")] = False,
    hps_weights: Annotated[Path | None, typer.Option(help="HPSv2.1's file of weights: adds its score.")] = None,
    lpips: Annotated[str, typer.Option(help="auto, none, alex, vgg or squeeze.")] = "auto",
    lpips_weights: Annotated[Path | None, typer.Option(help="The file of its backbone's weights.")] = None,
    max_variants: Annotated[
        int, typer.Option(min=1, help="Refuse sweeps that stand for more variants, before anything is drawn.")
    ] = 1_000,
    bins: Annotated[int, typer.Option(min=1, help="Timesteps of the denoising error.")] = 10,
    stages: Annotated[
        str | None,
        typer.Option(
            help="KIND:PROMPTS/ROWS,...: error, paired or full on so many prompts, and how many variants go on, as in "
            "error:64/20,paired:32/10,full:1000."
        ),
    ] = None,
    rank_by: Annotated[
        str | None, typer.Option(help="The metric by which variants go on, where it is measured; else a stage's first.")
    ] = None,
    latency: Annotated[
        bool,
        typer.Option(
            "--latency", help="Time the transformer of each row in turn with the baseline's; on a GPU its memory, too."
        ),
    ] = False,
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
    noise: NoiseOption = "own",
    batch_size: BatchOption = 8,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    call: CallOption = None,
    keep_images: Annotated[
        Literal["all", "grid", "none"], typer.Option(help="Keep every picture (PNG), a contact sheet, or none.")
    ] = "grid",
    columns: ColumnsOption = "prompts",
    force: Annotated[bool, typer.Option("--force", help="Replace results of another request.")] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> None:
    """Measure variants: against real pictures, the text and the baseline, beside three controls.

    A variant is a spec, or a model of its own: a compiled folder, whose recipe says of which base, or any other with
    --model, whose transformer then runs in the pipeline of that base.
    """
    refuse_stdin_twice(specs)
    arguments = pipeline_arguments(call, steps, guidance_scale, height, width)
    from surgery.demo.bundled_judges import bundled_judges
    from surgery.experiment.engine_choice import EngineChoice
    from surgery.experiment.evaluation import EvaluationRequest
    from surgery.experiment.judges import JudgeRequest
    from surgery.experiment.prompts import read_prompt_file
    from surgery.experiment.stages import read_stages
    from surgery.report.evaluation_folder import evaluate_into

    found = read_prompt_file(prompts, pictures=pictures, sample=sample, seed=sample_seed)

    judges = JudgeRequest(
        extractors=tuple(dict.fromkeys(extractor or ("auto",))),
        extractor_weights=extractor_weights,
        clip=clip,
        clip_weights=clip_weights,
        clip_tag=clip_tag,
        hps_weights=hps_weights,
        cmmd=cmmd,
        lpips=lpips,
        lpips_weights=lpips_weights,
        reference=reference,
        crop_px=crop,
        save_reference=save_reference,
        replace_reference=force,
        bundled=bundled_judges(),
    )
    request = EvaluationRequest(
        specs=tuple(specs),
        prompts=found,
        out=out,
        judges=judges,
        model=model,
        profile=profile,
        seed=seed,
        noise=noise,
        batch_size=batch_size,
        bins=bins,
        max_variants=max_variants,
        stages=() if stages is None else read_stages(stages),
        rank_by=rank_by,
        latency=latency,
        memory=round(memory * BYTES_A_GB),
        engine=EngineChoice(engine, workers, threads, address),
        dtype=dtype,
        device=device,
        call=arguments,
    )
    kept = f"the pictures that were drawn are kept in {out}; the same command goes on from there"
    with quietly(quiet), told_when_stopped(kept):
        evaluation, written = evaluate_into(request, keep_images, force=force, columns=columns)
    if json:
        print_json({**evaluation.to_json(), "files": [str(path) for path in written]})
        return
    from surgery.report.evaluation_table import evaluation_text

    say(evaluation_text(evaluation))
    say("\n".join(str(path) for path in written))


def list_measured() -> str:
    """What is measured, for `--help`; the sign in front keeps its lines."""
    return f"\b\n{list_metrics()}"
