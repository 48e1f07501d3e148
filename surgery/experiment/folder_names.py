"""Names of rows -> names of folders: none leads out of its folder, none is another's, on any file system.

A row is named after its spec and the values of a sweep, which may hold anything. `%41` stands for a character that a
name can't hold where it is (as in a URL), the character % itself among them.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

MAX_BYTES = 200  # of 255: a number, and the ending of a file that is being written, come behind
ESCAPED = re.compile(r"[%/\\\x00-\x1f\x7f]|^[. ]|[. ]$")
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # reserved by Windows, whatever follows


def folder_names(names: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """The folder of each name, in order; `taken` are names that other files have beside them.

    Names that a file system may hold for the same (in capitals or not, an accent written as one character or two) get
    a number behind all but the first.
    """
    found: dict[str, str] = {}
    used = {_as_seen(name) for name in taken}
    for name in names:
        escaped = _escaped(name)
        candidates = (escaped, *(f"{escaped}%{number}" for number in range(2, len(names) + len(taken) + 3)))
        found[name] = next(each for each in candidates if _as_seen(each) not in used)
        used.add(_as_seen(found[name]))
    return found


def _escaped(name: str) -> str:
    """The name as that of a folder; a long one is cut, with a hash of all of it behind."""
    escaped = ESCAPED.sub(lambda character: _escape(character[0]), name) or "%"
    if DEVICES.fullmatch(escaped):
        escaped = _escape(escaped[0]) + escaped[1:]
    content = escaped.encode("utf-8", "surrogatepass")
    if len(content) <= MAX_BYTES:
        return escaped
    digest = hashlib.sha256(content).hexdigest()[:16]
    return f"{content[: MAX_BYTES - 17].decode('utf-8', 'ignore')}%{digest}"


def _escape(character: str) -> str:
    return f"%{ord(character):02X}"


def _as_seen(name: str) -> str:
    """What two names have in common that are one to some file system."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
