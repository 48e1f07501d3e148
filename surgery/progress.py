"""What a long run shows of itself on standard error: a bar on a terminal, a line now and then elsewhere, or nothing."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from surgery.safe_text import show_safely

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_NOTES = 1.0
SECONDS_WORTH_A_LINE = 5.0
QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


class Meter(Protocol):
    """How far a run is."""

    def advance(self, number: int) -> None:
        """So many more are done."""

    def note(self, text: str) -> None:
        """What is being done now; shown with the next sign of life."""

    def close(self) -> None:
        """The run is done."""


class Silence:
    """Shows nothing."""

    def advance(self, number: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Bar:
    """A bar in place, by tqdm."""

    def __init__(self, total: int, unit: str, label: str, done: int) -> None:
        from tqdm import tqdm

        size = {"unit": "B", "unit_scale": True} if unit == "B" else {"unit": unit}
        self.bar: Any = tqdm(total=total, initial=done, desc=label, file=sys.stderr, disable=False, **size)
        self.noted = time.monotonic()

    def advance(self, number: int) -> None:
        """So many more are done."""
        self.bar.update(number)

    def note(self, text: str) -> None:
        """What is being done now, beside the bar."""
        self.bar.set_postfix_str(show_safely(text), refresh=False)
        if time.monotonic() - self.noted > SECONDS_BETWEEN_NOTES:
            self.noted = time.monotonic()
            self.bar.refresh()

    def close(self) -> None:
        """The bar stays, and the next text stands below it."""
        self.bar.close()


class Lines:
    """For logs: `drawing: 12 of 45 pictures, 31 s, about 85 s left (skip)`, and a last line when it is done."""

    def __init__(self, total: int, unit: str, label: str, done: int) -> None:
        self.total, self.unit, self.label = total, unit, label
        self.first = self.done = done
        self.text = ""
        self.started = self.shown = time.monotonic()

    def advance(self, number: int) -> None:
        """So many more are done."""
        self.done += number
        self.sign_of_life()

    def note(self, text: str) -> None:
        """What is being done now."""
        self.text = text
        self.sign_of_life()

    def sign_of_life(self) -> None:
        """A line, if the last one is some time ago."""
        now = time.monotonic()
        if now - self.shown < SECONDS_BETWEEN_LINES or self.done >= self.total:
            return
        self.shown = now
        seconds, newly = now - self.started, self.done - self.first
        left = f", about {seconds / newly * (self.total - self.done):.0f} s left" if newly else ""
        text = f" ({self.text})" if self.text else ""
        counted = f"{_amount(self.done, self.unit)} of {_amount(self.total, self.unit)}{_name(self.total, self.unit)}"
        self.write(f"{counted}, {seconds:.0f} s{left}{text}")

    def close(self) -> None:
        """What was done, and how long it took, if it took long."""
        newly = self.done - self.first
        seconds = time.monotonic() - self.started
        if seconds >= SECONDS_WORTH_A_LINE:
            self.write(f"{_amount(newly, self.unit)}{_name(newly, self.unit)} in {seconds:.0f} s")

    def write(self, text: str) -> None:
        """One whole line, at once."""
        print(show_safely(f"{self.label}: {text}"), file=sys.stderr, flush=True)


def _amount(number: int, unit: str) -> str:
    return f"{number / 1e6:,.1f} MB" if unit == "B" else f"{number:,}"


def _name(number: int, unit: str) -> str:
    return "" if unit == "B" else f" {unit}" + "s" * (number != 1)


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Within it nothing shows progress: neither this package, nor diffusers, transformers or the hub's client."""
    token = QUIET.set(quiet or QUIET.get())
    try:
        yield
    finally:
        QUIET.reset(token)


@contextmanager
def show_progress(total: int, *, unit: str, label: str, done: int = 0) -> Iterator[Meter]:
    """The meter of a run of `total` units, `done` of which an earlier run has done; unit `B` is bytes.

    A run that fails leaves its last sign of life as it is.
    """
    kind: Callable[[int, str, str, int], Meter] = Bar if sys.stderr.isatty() else Lines
    meter = Silence() if QUIET.get() else kind(total, unit, label, done)
    try:
        yield meter
    except BaseException:
        if isinstance(meter, Bar):
            meter.close()
        raise
    meter.close()


def say_stage(text: str) -> None:
    """A line that says what comes next; none where it is quiet."""
    if not QUIET.get():
        print(show_safely(text), file=sys.stderr, flush=True)


@contextmanager
def library_bars(shown: bool | None = None) -> Iterator[None]:
    """Within it, libraries that load a model show bars only if `shown`: by default on a terminal, unless quiet."""
    if (sys.stderr.isatty() and not QUIET.get()) if shown is None else shown:
        yield
        return
    import huggingface_hub.utils
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    hub: Any = huggingface_hub.utils  # typed as if its switches were not meant for others
    with ExitStack() as stack:
        for library in (diffusers, transformers):
            if library.is_progress_bar_enabled():
                library.disable_progress_bar()
                stack.callback(library.enable_progress_bar)
        if not hub.are_progress_bars_disabled():
            hub.disable_progress_bars()
            stack.callback(hub.enable_progress_bars)
        yield
