"""Where the rows of a transformer's call stand: at which share of the noise range, in which step, of which branch.

A pipeline under surgery knows it from its scheduler and tells it while it runs; so can whoever runs a transformer alone
(`surgery.standing_at`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import nn

from surgery.errors import InputError
from surgery.spec.operations import BRANCHES


@dataclass(frozen=True)
class Standing:
    """A row of a call; None is what is not known of it."""

    share: float | None = None
    step: int | None = None
    branch: str | None = None


Teller = Callable[[nn.Module, Mapping[str, Any], int], Sequence[Standing]]  # of a call's arguments and number of rows

_TELLER: ContextVar[tuple[tuple[nn.Module, ...], Teller] | None] = ContextVar("teller", default=None)
_SAID: ContextVar[Standing] = ContextVar("said")
UNKNOWN = Standing()


@contextmanager
def told_by(teller: Teller, models: Sequence[nn.Module]) -> Iterator[None]:
    """Within it, `teller` says where the rows of calls of `models` stand; another's (in a callback) are not its own."""
    token = _TELLER.set((tuple(models), teller))
    try:
        yield
    finally:
        _TELLER.reset(token)


@contextmanager
def standing_at(*, timestep: float | None = None, step: int | None = None, branch: str | None = None) -> Iterator[None]:
    """Say where the calls within it stand, for variants whose spec has windows (`when`); what is left out stays known.

    `timestep` is a share of the noise range (the scheduler's timestep / num_train_timesteps: 0 clean, 1 noise), `step`
    the index of the sampler's step, `branch` "conditional" or "unconditional", of all rows.

    Raises:
        InputError: a value is none.
    """
    if timestep is not None and not 0 <= timestep <= 1:
        raise InputError(f"the timestep {timestep:g} is no share of the noise range; write 0 (clean) to 1 (noise)")
    if step is not None and step < 0:
        raise InputError(f"there is no step {step}; steps count from 0")
    if branch not in (None, *BRANCHES):
        raise InputError(f'there is no branch "{branch}"; write {" or ".join(BRANCHES)}')
    before = _SAID.get(UNKNOWN)
    said = Standing(
        before.share if timestep is None else float(timestep),
        before.step if step is None else step,
        before.branch if branch is None else branch,
    )
    token = _SAID.set(said)
    try:
        yield
    finally:
        _SAID.reset(token)


def is_all_said() -> bool:
    """Whether nothing of where calls stand is left to be told."""
    said = _SAID.get(UNKNOWN)
    return None not in (said.share, said.step, said.branch)


def standing_of_rows(model: nn.Module, named: Mapping[str, Any], num_rows: int, otherwise: Teller) -> list[Standing]:
    """Where the rows of a call stand: what was said goes before what the pipeline tells, or `otherwise` without one."""
    said = _SAID.get(UNKNOWN)
    if is_all_said():
        return [said] * num_rows
    told_models, teller = _TELLER.get() or ((), otherwise)
    is_told = any(told is model for told in told_models)
    told = (teller if is_told else otherwise)(model, named, num_rows)
    return [
        Standing(
            row.share if said.share is None else said.share,
            row.step if said.step is None else said.step,
            row.branch if said.branch is None else said.branch,
        )
        for row in told
    ]
