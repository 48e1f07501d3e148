"""A script of the standard library alone: match patterns against names, saying which pattern is next.

Standard input is a JSON document, {"patterns": [...], "names": [...], "seconds": ...}; standard output the number of
each pattern as it begins. A pattern that takes longer ends the process: the system sends SIGVTALRM.
"""

import contextlib
import json
import re
import signal
import sys


def main() -> None:
    """Match all patterns in turn, each within its seconds of processor time."""
    given = json.load(sys.stdin)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    for number, pattern in enumerate(given["patterns"]):
        print(number, flush=True)
        signal.setitimer(signal.ITIMER_VIRTUAL, given["seconds"])
        with contextlib.suppress(re.error, RecursionError, OverflowError):  # whoever uses the pattern says so
            matcher = re.compile(pattern)
            for name in given["names"]:
                matcher.match(name)


if __name__ == "__main__":
    main()
