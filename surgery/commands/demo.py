"""`surgery demo`: the bundled pipeline before and after surgery."""

from pathlib import Path
from typing import Annotated

import typer

from surgery.commands.output import JsonFlag, print_json
from surgery.demo.location import DEMO_PROMPTS, demo_specs


def run(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Prompt k starts from the noise of seed + k.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Draw the bundled pipeline under the specs of specs/demo; about two minutes on two cores, no downloads."""
    from surgery.experiment.gallery import GalleryRequest, draw_gallery

    request = GalleryRequest(
        targets=tuple(str(path) for path in demo_specs()), prompts=DEMO_PROMPTS, out=out, seed=seed, force=True
    )
    gallery = draw_gallery(request)
    if json:
        print_json(gallery.to_json())
    else:
        typer.echo(gallery.describe())
