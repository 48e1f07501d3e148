"""The kinds of error that the package raises. This module imports nothing of the package."""

from collections.abc import Sequence
from typing import Self


class SurgeryError(Exception):
    """Base of all errors that a user can cause; its text says what is wrong and what to do instead."""


class InputError(SurgeryError):
    """A file, a model or an argument is not what the program needs."""


class SpecError(SurgeryError):
    """A spec has faults; `faults` holds one message each, in the order of their places.

    `partial` is what could be read of a spec whose faults are of the language, None otherwise.
    """

    def __init__(self, faults: Sequence[str], partial: object = None) -> None:
        self.faults = tuple(faults)
        self.partial = partial
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[str, ...], object]]:
        """As it was made: an error may come from another process."""
        return type(self), (self.faults, self.partial)

    @classmethod
    def of(cls, *faults: str) -> Self:
        """One error from its messages."""
        return cls(faults)


class TraceError(SurgeryError):
    """The forward of a model can't be traced; the text names the line of code where it failed."""


class SurgeryNote(UserWarning):
    """What a user should know of what was done, and that is no fault; commands print it as `note: ...`."""


class PartialTraceWarning(SurgeryNote):
    """A forward can't be traced whole; its stacks are, and the rest of it runs as it is."""


class RefusedError(SurgeryError):
    """A plan asks for what a backend can't do exactly."""


class InternalsError(SurgeryError):
    """A name that a library keeps to itself, and that a feature stands on, is not there in the installed version."""


class WorkerError(SurgeryError):
    """The workers of an engine can't do their work: they were lost, or are not like the process that asks."""


class NotYetError(SurgeryError):
    """The language has it, this version does not run it yet."""
