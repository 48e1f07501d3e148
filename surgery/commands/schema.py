"""`surgery schema`: the JSON Schema of the language, for editors."""

import json
from pathlib import Path
from typing import Annotated

import typer

from surgery.commands.output import say
from surgery.errors import InputError
from surgery.files import write_whole
from surgery.spec.schema import json_schema


def run(
    out: Annotated[Path | None, typer.Option(help="Write it to this file instead of standard output.")] = None,
) -> None:
    """Print the JSON Schema of specs, with which an editor completes and checks them.

    Name it in the first line of a spec: # yaml-language-server: $schema=surgery.schema.json
    """
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        say(text, end="")
        return
    try:
        write_whole(out, text)
    except OSError as error:
        raise InputError(
            f"{out} can't be written: {error.strerror}; write --out FILE in a folder that exists"
        ) from None
