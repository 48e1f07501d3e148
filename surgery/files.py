"""Files and folders that are there whole or not at all: written beside, then renamed."""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from surgery.errors import InputError, SurgeryError

RUST_SAYS = re.compile(r"\(os error (\d+)\)")


def expand_home(name: str | Path) -> Path:
    """A path with the folder that `~` or `~user` at its beginning stands for; of a user who is not there, as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def is_file(path: Path) -> bool:
    """Whether there is a file; False of a path that can be none, by a name that is too long or has a null character.

    For names that a document gives.
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_there(path: Path) -> bool:
    """Whether there is a file or a folder; False of a path that can be neither, as `is_file`."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def explain_failure(error: OSError, out: Path) -> InputError:
    """What to say of a failure to write `out`, after which nothing is left of it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"the disk of {out} is full; nothing was left there: make room, or write to another disk")
    if error.errno == errno.EFBIG:
        return InputError(
            f"the disk of {out} takes no files of this size, and nothing was left there; write smaller ones "
            "(--max-shard-size), or to another disk"
        )
    reason = error.strerror or str(error)
    return InputError(f"{out} was not written: {reason}" + (f": {error.filename}" if error.filename else ""))


def system_error_of(error: Exception) -> OSError | None:
    """A failure of the system, also where a library in Rust (safetensors) tells it by an error of its own."""
    if isinstance(error, OSError):
        return error
    found = RUST_SAYS.search(str(error))
    return None if found is None else OSError(int(found[1]), os.strerror(int(found[1])))


@contextlib.contextmanager
def failures_explained(out: Path) -> Iterator[None]:
    """Raise InputError where the system fails to write `out` within."""
    try:
        yield
    except SurgeryError:
        raise
    except Exception as error:
        failure = system_error_of(error)
        if failure is None:
            raise
        raise explain_failure(failure, out) from None


@contextlib.contextmanager
def locked(folder: Path, out: Path) -> Iterator[None]:
    """Hold the lock of a folder that is being written, for `out`; the system gives it up with the process.

    It is made where it is not there, and after an error it goes again, with what was made above it, if it is empty.

    Raises:
        InputError: another run is writing it.
    """
    above = [path for path in (folder, *folder.parents) if not path.exists()]
    while (handle := _lock(folder, out)) is None:
        pass
    try:
        yield
    except BaseException:
        for path in above:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    finally:
        os.close(handle)


def _lock(beside: Path, out: Path) -> int | None:
    """Make a folder and lock it; None where the run that had it has renamed or removed it meanwhile."""
    import fcntl

    beside.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(beside, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), beside.stat()):
            return handle
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"another run is writing {out}; wait for it, or give another folder") from None
    except FileNotFoundError:
        pass
    os.close(handle)
    return None


def sync_folder(folder: Path) -> None:
    """Wait until all files of a folder, and the names of them, are on the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(root) / name)
        sync_file(Path(root))


def sync_file(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_file(path: Path, place: Path) -> bool:
    """Give a file another name, where its file system can and allows it; whether it did.

    A symlink is followed, so that no link to it remains.

    Raises:
        FileExistsError: there is something of that name.
    """
    try:
        os.link(os.path.realpath(path), place)
    except FileExistsError:
        raise
    except OSError:  # another file system, one without links, or another owner's file: a copy is as good
        return False
    return True


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file, replacing one that is there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(content if isinstance(content, bytes) else content.encode())
        beside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def key_of_recipe(recipe: Mapping[str, Any]) -> str:
    """The SHA-256 of plain data, whatever the order of its keys: what was made so is kept under it, and found again."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
