"""The command line: `surgery COMMAND ...`. Heavy imports stay inside the commands that need them.

Exit statuses: 0 it is done; 1 a fault of the input, or a refusal; 2 wrong usage; 130 interrupted; 141 nobody reads.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from surgery.commands import (
    card,
    check,
    compile_spec,
    demo,
    diff,
    doctor,
    evaluation,
    export,
    generate,
    heal,
    inspection,
    learn,
    plot,
    profiling,
    remap,
    report,
    schema,
    search,
    spectrum,
    suggest,
    train,
)
from surgery.commands.output import say
from surgery.commands.streams import own_streams
from surgery.errors import SurgeryError, SurgeryNote
from surgery.version import __version__

INTERRUPTED = 130


class SurgeryGroup(TyperGroup):
    """Turns the package's errors, and those of the file system, into their text and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (SurgeryError, OSError) as error:
            say(str(error), err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=SurgeryGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Layer surgery on diffusion transformers: a YAML spec skips, repeats, reverses or replaces layers.",
)


def print_version(wanted: bool) -> None:
    """The name and the version of the program, and the end of it."""
    if wanted:
        say(f"surgery {__version__}")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What stands before a command."""


app.command("demo")(demo.run)
app.command("inspect")(inspection.run)
app.command("learn")(learn.run)
app.command("check")(check.run)
app.command("diff")(diff.run)
app.command("generate")(generate.run)
app.command("compile")(compile_spec.run)
app.command("evaluate", epilog=evaluation.list_measured())(evaluation.run)
app.command("report")(report.run)
app.command("card")(card.run)
app.command("remap")(remap.run)
app.command("profile")(profiling.run)
app.command("plot")(plot.run)
app.command("suggest")(suggest.run)
app.command("search")(search.run)
app.command("heal")(heal.run)
app.command("train")(train.run)
app.command("spectrum")(spectrum.run)
app.add_typer(export.app, name="export")
app.command("schema")(schema.run)
app.command("doctor")(doctor.run)


@contextlib.contextmanager
def told_notes() -> Iterator[None]:
    """Print our own warnings as notes, without the place in the code where they arose."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def tell(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, SurgeryNote):
                say(f"note: {message}", err=True)
            else:
                show(message, category, *place, **more)

        warnings.showwarning = tell
        yield


def main() -> None:
    """The entry point of the `surgery` script."""
    try:
        with own_streams(), told_notes():
            app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
