"""The one guard of all that reads files of others: what a damaged file makes a reader raise becomes a message.

What a decoder raises over bytes that it did not expect is not written down anywhere (Pillow's AVIF raises RuntimeError,
numpy's headers tokenize.TokenError), so that everything that is no fault of the interpreter counts as damage.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surgery.errors import InputError, SurgeryError


@contextlib.contextmanager
def told_as(what: str) -> Iterator[None]:
    """Raise InputError (`WHAT: why`) where reading a file fails within; messages of our own pass."""
    try:
        yield
    except (SurgeryError, NameError):  # the second is a mistake of ours
        raise
    except OSError as error:
        raise InputError(f"{what}: {error.strerror or error}") from None
    except Exception as error:
        said = f"{error}".strip() or "it is damaged"
        kind = "" if isinstance(error, ValueError) or not f"{error}".strip() else f"{type(error).__name__}: "
        raise InputError(f"{what}: {kind}{said}") from None


def read_arrays(path: str | Path, key: str, what: str) -> tuple[Any, dict[str, Any]]:
    """Of a safetensors file the JSON that its header has under `key` (None without), and all arrays by name.

    Raises:
        InputError: it can't be read; `what` says in the message what it is.
    """
    from safetensors import safe_open

    with told_as(f"{what} can't be read"), safe_open(path, framework="numpy") as file:
        header = json.loads((file.metadata() or {}).get(key, "null"))
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
