"""Options that are given on the command line and would do nothing there."""

from collections.abc import Collection

import typer


def given_options(context: typer.Context) -> list[str]:
    """The names of the parameters that the command line gives; defaults are not among them."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def refuse_options(context: typer.Context, names: Collection[str], reason: str) -> None:
    """A usage error where one of these is given."""
    found = [name for name in given_options(context) if name in names]
    if found:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in found)
        raise typer.BadParameter(f"{reason}; leave it out", param_hint=options)
