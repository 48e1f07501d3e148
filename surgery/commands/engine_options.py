"""The options of commands whose work an engine does: which, and with how much of which machines."""

from typing import Annotated, Literal

import typer

EngineOption = Annotated[
    Literal["serial", "ray"],
    typer.Option(help="serial: this process; ray: workers, one a GPU or a share of the CPUs (docs/many-machines.md)."),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Of --engine ray: as many as there is room for, if not given.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of each process; equal ones give equal results to the bit.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT|auto", help="The cluster that `ray start` made, for --engine ray; else one for this run."
    ),
]
MemoryOption = Annotated[
    float, typer.Option(min=0, help="GB of states between blocks that may wait for other variants to go on.")
]
DEFAULT_GB, BYTES_A_GB = 4.0, 10**9
