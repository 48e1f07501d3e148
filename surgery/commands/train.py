"""`surgery train CONFIG.yaml --out DIR`: the reference DiT, trained from nothing as a config says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgery.commands.output import JsonFlag, QuietFlag, print_json, say, told_when_stopped
from surgery.progress import quietly

if TYPE_CHECKING:
    from surgery.training.dit.training_run import TrainedModel


def run(
    config: Annotated[Path, typer.Argument(help="A training config: YAML that begins with `train: v1`.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must be new or empty.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training, instead of the config's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all that is random, instead of the config's.")] = None,
    device: Annotated[str, typer.Option(help="auto (as accelerate launch says) or cpu.")] = "auto",
    work: Annotated[
        Path | None, typer.Option(help="Folder of the state, samples and logs; default: OUT.training.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of encoded pictures; default: in the work folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there, and another run's state.")] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> None:
    """Train a DiT, and write it as a pipeline folder that every command takes.

    An interrupted run goes on when the same command is given again; the weights that measured best on held-out pictures
    are kept.
    """
    from surgery.demo.drawn_emoji import draw_all_emoji
    from surgery.training.dit.read_config import load_config
    from surgery.training.dit.train_request import TrainRequest
    from surgery.training.dit.training_run import train_model

    request = TrainRequest(
        config=load_config(config).overridden(steps=steps, seed=seed),
        out=out,
        draw_emoji=draw_all_emoji,
        device=device,
        work=work,
        cache=cache,
        force=force,
    )
    with (
        quietly(quiet),
        told_when_stopped(f"the last state is in {request.work_folder}; the same command goes on there"),
    ):
        trained = train_model(request)
    print_json({"out": str(trained.folder), **trained.facts}) if json else say(describe_trained(trained))


def describe_trained(trained: "TrainedModel") -> str:
    """What was learnt, and where it is."""
    facts, validation = trained.facts, trained.facts["validation"]
    pictures = facts["pictures"]
    kept = "" if validation["step"] == facts["steps"] else f", kept as it was after {validation['step']}"
    curve = ", ".join(f"{loss:.4f} ({step})" for step, loss in validation["history"])
    return "\n".join(
        [
            f"{trained.folder}: a DiT of {facts['parameters']:,} parameters ({facts['model']['conditioning']}), "
            f"trained {facts['steps']} steps on {pictures['learnt']:,} pictures{kept}",
            f"  error of the noise on {pictures['held_out']:,} held-out pictures (after so many steps): {curve}",
        ]
    )
