"""Small JSON files in the user's cache folder: what was found out once. Only this user's own files are believed."""

import contextlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from surgery.errors import InputError
from surgery.files import expand_home, write_whole

CACHE_VARIABLE = "SURGERY_CACHE"


def cache_folder() -> Path:
    """`$SURGERY_CACHE`, or `layer-surgery` in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return expand_home(chosen)
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "layer-surgery"


def kept_file(shelf: str, key: str) -> Path:
    """Where what has this key lies; `shelf` is the folder of its kind."""
    assert re.fullmatch("[0-9a-f]{64}", key), "a key is a hash"
    return cache_folder() / shelf / f"{key}.json"


def recall(path: Path) -> Any:
    """What a file of the cache holds; None for one that is another user's, or that others can write to.

    Raises:
        OSError, ValueError: it is not there, or is damaged.
    """
    return json.loads(path.read_bytes()) if _is_own(path) else None


def _is_own(path: Path) -> bool:
    """Whether a file is this user's, and nobody else may write to it."""
    state = path.stat()
    return state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def keep(path: Path, content: Any) -> bool:
    """Write a file of the cache; whether it was. A folder that can't be written to is no error: nothing is kept."""
    with contextlib.suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content))
        path.chmod(0o600)  # what others may write to is not believed, whatever the umask
        return True
    return False
