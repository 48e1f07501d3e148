"""The command line: `surgery COMMAND ...`. Heavy imports stay inside the commands that need them."""

from typing import Any

import typer
from typer.core import TyperGroup

from surgery.commands import (
    check,
    compile_spec,
    demo,
    diff,
    doctor,
    evaluation,
    export,
    generate,
    inspection,
    plot,
    profiling,
    remap,
    schema,
    suggest,
)
from surgery.errors import SurgeryError


class SurgeryGroup(TyperGroup):
    """Turns the package's errors, and those of the file system, into their text and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (SurgeryError, OSError) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=SurgeryGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Layer surgery on diffusion transformers: a YAML spec skips, repeats, reverses or replaces layers.",
)
app.command("demo")(demo.run)
app.command("inspect")(inspection.run)
app.command("check")(check.run)
app.command("diff")(diff.run)
app.command("generate")(generate.run)
app.command("compile")(compile_spec.run)
app.command("evaluate", epilog=evaluation.list_measured())(evaluation.run)
app.command("remap")(remap.run)
app.command("profile")(profiling.run)
app.command("plot")(plot.run)
app.command("suggest")(suggest.run)
app.add_typer(export.app, name="export")
app.command("schema")(schema.run)
app.command("doctor")(doctor.run)


def main() -> None:
    """The entry point of the `surgery` script."""
    app()
