"""Standard output and error of the program: any text can be written, and whoever reads it may leave early."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

CLOSED_PIPE = 128 + signal.SIGPIPE  # what a shell calls a program that ended because its reader had left


class Output(io.TextIOWrapper):
    """A text stream that takes every character, and ends the process quietly where nobody reads any more.

    What its encoding has no character for is written as an escape, like `\\u2260`.
    """

    @classmethod
    def over(cls, stream: io.TextIOWrapper) -> "Output":
        """The same stream; what is written to either comes in order, as long as the old one is not used meanwhile."""
        stream.flush()
        return cls(
            stream.buffer,
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            leave_closed_pipe()

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            leave_closed_pipe()


def leave_closed_pipe() -> NoReturn:
    """End with the status of a closed pipe; what is still buffered goes nowhere, so that nothing is said of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    sys.exit(CLOSED_PIPE)


@contextmanager
def own_streams() -> Iterator[None]:
    """Within it the standard streams are `Output`, where they are the system's; at its end all is written."""
    before = sys.stdout, sys.stderr
    own = [Output.over(stream) if isinstance(stream, io.TextIOWrapper) else stream for stream in before]
    sys.stdout, sys.stderr = own
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in own:
            if isinstance(stream, Output):
                stream.flush()
                stream.detach()
