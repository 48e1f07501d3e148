"""A process of its own for what needs torch, asked over pipes: the one that copies stays small.

Where torch is loaded in this process already, there is nothing to keep out of it, and questions are answered here.
"""

import _thread
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, Protocol, TextIO

from surgery import errors
from surgery.errors import InputError, SurgeryError

SECONDS_TO_END = 2.0


class Ask(Protocol):
    """Ask a question (see publish.answers); raises what the answer raised."""

    def __call__(self, question: str, **about: Any) -> dict[str, Any]: ...


@contextmanager
def open_verifier() -> Iterator[Ask]:
    """Something to ask, as long as it is open."""
    if "torch" in sys.modules:
        yield ask_here
        return
    command = [sys.executable, "-m", "surgery.publish.worker"]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdin is not None, "it is a pipe"
        try:
            yield lambda question, **about: _ask_process(process, log, question, about)
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # of a question that it did not live to read
                process.stdin.close()


def ask_here(question: str, **about: Any) -> dict[str, Any]:
    """Ask in this process."""
    from surgery.publish.answers import answer

    return answer(question, about)


def _ask_process(
    process: "subprocess.Popen[str]", log: TextIO, question: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None, "both are pipes"
    reply = ""
    try:
        process.stdin.write(json.dumps({"question": question, "about": about}) + "\n")
        process.stdin.flush()
        reply = process.stdout.readline()
    except BrokenPipeError:
        pass
    if not reply:
        status = process.wait()
        log.seek(0)
        said = log.read().strip().splitlines()
        reason = said[-1] if said and status > 0 else "was there enough memory?"
        raise InputError(f"the process that verifies ended with status {status}: {reason}")
    content = json.loads(reply)
    if "error" in content:
        raise _revive(content["error"], content["text"])
    answer: dict[str, Any] = content["answer"]
    return answer


def _revive(kind: str, text: str) -> SurgeryError:
    found = getattr(errors, kind, SurgeryError)
    error: SurgeryError = SurgeryError(text) if found is errors.SpecError else found(text)
    return error


def main() -> None:
    """Answer questions, a line of JSON each. Standard output is kept for answers."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    from surgery.publish.answers import answer

    while True:
        asked = json.loads(lines.get())
        try:
            content: dict[str, Any] = {"answer": answer(asked["question"], asked["about"])}
        except SurgeryError as error:
            content = {"error": type(error).__name__, "text": str(error)}
        replies.write(json.dumps(content) + "\n")
        replies.flush()


def _read_lines(lines: SimpleQueue[str]) -> None:
    """Queue the lines of standard input. It ends with who asked, and so does this process, even in an answer."""
    for line in sys.stdin:
        lines.put(line)
    _thread.interrupt_main()  # what is temporary is removed
    time.sleep(SECONDS_TO_END)
    os._exit(1)


if __name__ == "__main__":
    main()
