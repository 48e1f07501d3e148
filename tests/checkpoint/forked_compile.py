"""`surgery compile --to checkpoint` many times over, each in a forked process that may be killed in its midst.

What the process that verifies would say is read from a file, so that nothing here loads torch. `python
forked_compile.py ANSWERS` reads requests from standard input, a line of JSON each, and prints a reply for each. A
request has the `arguments` of the command, and where it is to be killed, either `before` (which operation on files: 1,
2, ...) or `after` (seconds since the folder to write in was made). A reply has `status` (negative for a signal),
`stderr`, and `operations` (how many there were).
"""

import gc
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from typer.main import get_command

from surgery.commands import main
from surgery.publish import pruned_model
from surgery.publish.worker import Ask

OPERATIONS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "open")


def run(request: dict[str, Any], counter: int) -> None:
    """Run the command in this process, and kill it when it is time. `counter` is a file to count operations in."""
    out = request["arguments"][request["arguments"].index("--out") + 1]
    number = 0

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal number
        if event not in OPERATIONS or (event == "open" and not str(arguments[0]).startswith(str(Path(out).parent))):
            return
        number += 1
        os.pwrite(counter, number.to_bytes(8, "little"), 0)
        if number >= request.get("before", sys.maxsize):  # two threads may count before one looks
            kill()
        if event == "os.mkdir" and "after" in request:
            threading.Timer(request["after"], kill).start()

    sys.addaudithook(watch)
    sys.argv = ["surgery", *request["arguments"]]
    main.main()


def fork(request: dict[str, Any]) -> dict[str, Any]:
    """Run a request in a process of its own; what became of it."""
    counter, errors = os.memfd_create("operations"), os.memfd_create("stderr")
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(errors, 2)
        status = 70  # of a traceback
        try:
            run(request, counter)
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    operations = int.from_bytes(os.pread(counter, 8, 0), "little")
    said = os.pread(errors, 10**6, 0).decode()
    os.close(counter)
    os.close(errors)
    return {"status": os.waitstatus_to_exitcode(status), "stderr": said, "operations": operations}


def load_modules(arguments: list[str]) -> None:
    """Load what the command needs, and make its parser, once and not in every fork."""
    command = get_command(main.app)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        command([*arguments, "--dry-run"], standalone_mode=False)
    assert "torch" not in sys.modules, "the process that copies has no torch"
    main.app = command
    gc.freeze()  # what a fork does not look at it does not copy


def serve(answers: Path) -> None:
    """Answer the requests."""
    recorded = json.loads(answers.read_text())

    @contextmanager
    def open_recorded() -> Iterator[Ask]:
        yield lambda question, **about: recorded[question]

    pruned_model.open_verifier = open_recorded
    for number, line in enumerate(sys.stdin):
        request = json.loads(line)
        if number == 0:
            load_modules(request["arguments"])
        print(json.dumps(fork(request)), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
