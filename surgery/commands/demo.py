"""`surgery demo`: the bundled pipeline before and after surgery, and a pruned copy of it."""

from pathlib import Path
from typing import Annotated

import typer

from surgery.commands.output import JsonFlag, print_json
from surgery.demo.location import DEMO_PROMPTS, demo_specs

PRUNED = "skip"  # the spec that is also compiled to a checkpoint


def run(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Prompt k starts from the noise of seed + k.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Draw the bundled pipeline under the specs of specs/demo, and prune it to a checkpoint that diffusers draws with.

    About three minutes on two cores, no downloads.
    """
    from surgery.demo.pruned import draw_pruned
    from surgery.experiment.gallery import GalleryRequest, draw_gallery

    request = GalleryRequest(
        targets=tuple(str(path) for path in demo_specs()), prompts=DEMO_PROMPTS, out=out, seed=seed, force=True
    )
    gallery = draw_gallery(request)
    spec = next(path for path in demo_specs() if path.stem == PRUNED)
    stock = draw_pruned(spec, out, gallery.recipe)
    if json:
        print_json({**gallery.to_json(), "pruned": stock.to_json()})
    else:
        typer.echo(f"{gallery.describe()}\n{stock.describe()}")
