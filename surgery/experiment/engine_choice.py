"""Which engine runs the rows, and with how much of which machines."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from surgery.errors import InputError
from surgery.experiment.engines import SERIAL, Engine

EngineName = Literal["serial", "ray"]


@dataclass(frozen=True)
class EngineChoice:
    """`serial` is this process; `ray` are `workers` of it, on the cluster at `address`, or on one made for the run.

    `threads` are those that a process computes with on the CPU: torch's own choice where they are not given, or with
    workers, their share of the CPUs. No result depends on the engine, but the last bits of floats do on `threads`.
    """

    name: EngineName = "serial"
    workers: int | None = None
    threads: int | None = None
    address: str | None = None


@contextmanager
def open_engine(choice: EngineChoice, device: str) -> Iterator[Engine]:
    """The engine; its workers are gone afterwards, and so is a cluster that was made for it.

    Raises:
        InputError: the engine is not installed, is no engine of such workers, or there is no cluster at the address.
    """
    if choice.name == "serial":
        given = [f"--{name}" for name in ("workers", "address") if getattr(choice, name) is not None]
        if given:
            raise InputError(f"{' and '.join(given)} would do nothing with --engine serial; write --engine ray")
        with computing_threads(choice.threads):
            yield SERIAL
        return
    from surgery.experiment.ray_engine import open_ray

    with open_ray(choice.workers, choice.threads, choice.address, device) as engine, computing_threads(engine.threads):
        yield engine


@contextmanager
def computing_threads(number: int | None) -> Iterator[None]:
    """Within it torch computes with so many threads; None: as before."""
    import torch

    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number is not None:
            torch.set_num_threads(before)
