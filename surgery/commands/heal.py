"""`surgery heal CHECKPOINT --prompts FILE|--pictures DIR --out DIR`: a pruned model, trained to be like its base."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgery.commands.drawing_options import (
    CallOption,
    GuidanceOption,
    HeightOption,
    WidthOption,
    pipeline_arguments,
)
from surgery.commands.given_options import given_options, refuse_options
from surgery.commands.output import JsonFlag, QuietFlag, print_json, say, told_when_stopped
from surgery.progress import quietly
from surgery.training.settings import Precision, Schedule, TrainingSettings
from surgery.training.trained_parts import Part

if TYPE_CHECKING:
    from surgery.training.healing import Healed

DATA, LEARNING, LOSSES, RUN = "Data", "Learning", "Losses", "The run"
APART = {"checkpoint", "out", "work", "cache", "force", "quiet", "json", "tracker", "samples", "device"}  # from a card


def run(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="A folder that `surgery compile --to checkpoint` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must be new or empty.")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompts, one a line: the base model draws what is learnt from.", rich_help_panel=DATA),
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Or a folder of pictures with captions.", rich_help_panel=DATA)
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(help="Prompts to measure by, which are not learnt from; default: a share.", rich_help_panel=DATA),
    ] = None,
    held_out_share: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="The share of the data that is held out.", rich_help_panel=DATA)
    ] = 0.1,
    latents_per_prompt: Annotated[
        int,
        typer.Option(min=1, help="Latents drawn of each prompt, each from a noise of its own.", rich_help_panel=DATA),
    ] = 4,
    trajectory_steps: Annotated[
        int, typer.Option(min=1, help="Steps in which the base model draws them.", rich_help_panel=DATA)
    ] = 8,
    unconditional: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of rows that are learnt with the empty prompt, as guidance asks for it.",
            rich_help_panel=DATA,
        ),
    ] = 0.1,
    model: Annotated[
        str | None, typer.Option(help="Where the base model is, if not where it was.", rich_help_panel=DATA)
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.", rich_help_panel=LEARNING)] = 1000,
    train: Annotated[
        Part,
        typer.Option(
            help="all weights; lora: adapters in the blocks; norms: with their modulations; neighbours: the blocks "
            "beside a gap.",
            rich_help_panel=LEARNING,
        ),
    ] = "all",
    rank: Annotated[int, typer.Option(min=1, help="Of a LoRA.", rich_help_panel=LEARNING)] = 16,
    lora_apart: Annotated[
        bool,
        typer.Option(
            "--lora-apart",
            help="Keep the LoRA in a file beside the weights (load_lora_weights) instead of merging it.",
            rich_help_panel=LEARNING,
        ),
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a batch.", rich_help_panel=LEARNING)] = 16,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches of a step.", rich_help_panel=LEARNING)] = 1,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=LEARNING)] = 1e-4,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=LEARNING)] = 0.0,
    warmup: Annotated[int, typer.Option(min=0, help="Steps in which the rate rises.", rich_help_panel=LEARNING)] = 10,
    schedule: Annotated[Schedule, typer.Option(help="Of the rate.", rich_help_panel=LEARNING)] = "cosine",
    clip: Annotated[float, typer.Option(help="The largest norm of gradients.", rich_help_panel=LEARNING)] = 1.0,
    ema: Annotated[
        float | None,
        typer.Option(help="Measure and keep a moving average of the weights, of this decay.", rich_help_panel=LEARNING),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Mixed precision.", rich_help_panel=LEARNING)] = "no",
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="Compute blocks twice, to need less memory.", rich_help_panel=LEARNING
        ),
    ] = False,
    output: Annotated[
        float, typer.Option(min=0, help="Weight: square distance to the base's prediction.", rich_help_panel=LOSSES)
    ] = 1.0,
    features: Annotated[
        float,
        typer.Option(min=0, help="Weight: distance at the ends of surviving blocks.", rich_help_panel=LOSSES),
    ] = 0.0,
    denoising: Annotated[
        float, typer.Option(min=0, help="Weight: the loss of training, on --pictures.", rich_help_panel=LOSSES)
    ] = 0.0,
    mask_sigmas: Annotated[
        float,
        typer.Option(
            min=0,
            help="Values further from their mean are left out of the feature loss; 0 leaves none out.",
            rich_help_panel=LOSSES,
        ),
    ] = 4.0,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between measurements.", rich_help_panel=RUN)] = 50,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after so many measurements with nothing better.", rich_help_panel=RUN),
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between states.", rich_help_panel=RUN)] = 50,
    bins: Annotated[int, typer.Option(min=1, help="Of the noise range, to measure in.", rich_help_panel=RUN)] = 10,
    samples: Annotated[
        int, typer.Option(min=0, help="Held-out prompts to draw at each measurement.", rich_help_panel=RUN)
    ] = 0,
    tracker: Annotated[
        list[str] | None,
        typer.Option(help="tensorboard, wandb, ... as accelerate has them; repeatable.", rich_help_panel=RUN),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of the state, samples and logs; default: OUT.healing.", rich_help_panel=RUN),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of latents and encoded text; default: in the work folder.", rich_help_panel=RUN),
    ] = None,
    guidance_scale: GuidanceOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    device: Annotated[str, typer.Option(help="auto (as accelerate launch says) or cpu.")] = "auto",
    call: CallOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there, and another run's state.")] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> None:
    """Train a pruned checkpoint to predict what its base model predicts, and write it with what it gained.

    The checkpoint and its base stay as they are. An interrupted run goes on when the same command is given again; the
    weights that measured best on held-out prompts are kept.
    """
    if train != "lora":
        refuse_options(context, {"rank", "lora_apart"}, "they are of --train lora")
    if pictures is not None:
        refuse_options(context, {"latents_per_prompt", "trajectory_steps"}, "with --pictures nothing is drawn")
    settings = TrainingSettings(
        steps=steps,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        schedule=schedule,
        accumulate=accumulate,
        clip=clip,
        ema=ema,
        precision=precision,
        gradient_checkpointing=gradient_checkpointing,
        validate_every=validate_every,
        patience=patience,
        checkpoint_every=checkpoint_every,
        trackers=tuple(tracker or ()),
        seed=seed,
        weights={"output": output, "features": features, "denoising": denoising},
    )
    arguments = pipeline_arguments(call, None, guidance_scale, height, width)
    from surgery.experiment.prompts import read_prompt_file
    from surgery.training.heal_request import HealRequest
    from surgery.training.healing import heal_checkpoint

    request = HealRequest(
        checkpoint=checkpoint,
        out=out,
        settings=settings,
        prompts=() if prompts is None else read_prompt_file(prompts).prompts,
        pictures=pictures,
        held_out=None if held_out is None else read_prompt_file(held_out).prompts,
        held_out_share=held_out_share,
        model=model,
        train=train,
        rank=rank,
        lora_apart=lora_apart,
        latents_per_prompt=latents_per_prompt,
        trajectory_steps=trajectory_steps,
        unconditional=unconditional,
        mask_sigmas=mask_sigmas or None,
        batch_size=batch_size,
        bins=bins,
        num_samples=samples,
        device=device,
        call=arguments,
        work=work,
        cache=cache,
        force=force,
        arguments=card_arguments(context),
    )
    with (
        quietly(quiet),
        told_when_stopped(f"the last state is in {request.work_folder}; the same command goes on there"),
    ):
        healed = heal_checkpoint(request)
    print_json({"out": str(healed.folder), "healed": dict(healed.facts)}) if json else say(describe_healed(healed))


def card_arguments(context: typer.Context) -> tuple[str, ...]:
    """The options that were given and decide what is learnt, as strangers may read them: files by their names."""
    words: list[str] = []
    for name in given_options(context):
        if name in APART:
            continue
        value: Any = context.params[name]
        option = f"--{name.replace('_', '-')}"
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            text = Path(one).name if isinstance(one, Path) or name == "model" else str(one)
            words += [option] if one is True else [option, text]
    return tuple(words)


def describe_healed(healed: "Healed") -> str:
    """What was gained, and where it is."""
    validation, trained = healed.facts["validation"], healed.trained
    stopped = "" if trained.best.step == trained.steps else f", the best of {trained.steps}"
    gain = 1 - validation["after"] / validation["before"] if validation["before"] else 0.0
    curve = ", ".join(f"{error:.3f} ({step})" for step, error in validation["history"])
    return "\n".join(
        [
            f"{healed.folder}: healed in {trained.best.step} steps{stopped}",
            f"  denoising error on {validation['prompts']} held-out prompts: {validation['before']:.3f} before, "
            f"{validation['after']:.3f} after ({gain:.0%} less)",
            f"  on the way (after so many steps): {curve}",
        ]
    )
