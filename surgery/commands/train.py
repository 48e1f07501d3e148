"""`surgery train CONFIG.yaml --out DIR`: the reference DiT, trained from nothing as a config says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgery.commands.output import JsonFlag, QuietFlag, print_json, say, told_when_stopped
from surgery.files import write_whole
from surgery.progress import quietly

if TYPE_CHECKING:
    from surgery.training.dit.training_run import TrainedModel

GATES = "gates.png"  # in the folder of the run


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
    log_gates: Annotated[
        bool,
        typer.Option(
            "--log-gates", help="Of freq_gate: read out the gates at every measure, and draw them at the end."
        ),
    ] = False,
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
        log_gates=log_gates,
    )
    with (
        quietly(quiet),
        told_when_stopped(f"the last state is in {request.work_folder}; the same command goes on there"),
    ):
        trained = train_model(request)
        if log_gates:
            write_gate_figure(trained.facts["gates"]["low"], request.work_folder / GATES)
    print_json({"out": str(trained.folder), **trained.facts}) if json else say(describe_trained(trained))


def write_gate_figure(low: list[list[float]], path: Path) -> None:
    """The gates by block and bin, as a PNG."""
    import numpy as np

    from surgery.report.gate_figure import draw_gates
    from surgery.report.plot_profile import render

    write_whole(path, render(draw_gates(np.array(low)), "png"))


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
