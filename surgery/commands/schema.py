"""`surgery schema`: the JSON Schema of the language, for editors."""

import json
from pathlib import Path
from typing import Annotated

import typer

from surgery.commands.output import say
from surgery.outputs import write_file
from surgery.spec.schema import json_schema


def run(
    out: Annotated[Path | None, typer.Option(help="Write it to this file instead of standard output.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Print the JSON Schema of specs, with which an editor completes and checks them.

    Name it in the first line of a spec: # yaml-language-server: $schema=surgery.schema.json
    """
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        say(text, end="")
        return
    write_file(out, text, force=force)
