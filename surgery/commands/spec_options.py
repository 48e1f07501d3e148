"""The options that all commands share which take specs: whose model, and whose means."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from surgery.spec.spec_name import STANDARD_INPUT, parse_spec_name

POINT_HELP = "- is standard input, and 'FILE#s=3,how=skip' one point of a sweep"

ModelOption = Annotated[str | None, typer.Option(help="The model, instead of the one that the spec names.")]
MeansOption = Annotated[
    Path | None,
    typer.Option("--profile", help="The profile whose means are used, instead of the one that the spec names."),
]
TransformerOption = Annotated[
    Literal["transformer", "transformer_2"] | None,
    typer.Option(help="Of a pipeline with two transformers (Wan 2.2), which of them."),
]


def refuse_stdin_twice(specs: Sequence[str | Path]) -> None:
    """Raise BadParameter where two specs are to be read from standard input, which there is once."""
    if [parse_spec_name(path).path for path in specs].count(STANDARD_INPUT) > 1:
        raise typer.BadParameter("- is standard input, which holds one spec; give it once")
