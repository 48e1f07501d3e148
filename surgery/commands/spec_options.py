"""The options that all commands share which take specs: whose model, and whose means."""

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[str | None, typer.Option(help="The model, instead of the one that the spec names.")]
MeansOption = Annotated[
    Path | None,
    typer.Option("--profile", help="The profile whose means are used, instead of the one that the spec names."),
]
