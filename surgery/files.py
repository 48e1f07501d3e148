"""Files and folders that are there whole or not at all: written beside, then renamed."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgery.errors import InputError


def expand_home(name: str | Path) -> Path:
    """A path with the folder that `~` or `~user` at its beginning stands for; of a user who is not there, as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def refuse_target(out: Path, *, force: bool) -> None:
    """Raise InputError where writing a folder would hurt what is there, or can't be done."""
    try:
        out.resolve(strict=False)
        exists, is_folder = os.path.lexists(out), out.is_dir()
    except (OSError, RuntimeError):
        raise InputError(f"{out} is a loop of symlinks; give another folder") from None
    if exists and out.is_symlink() and not out.exists():
        raise InputError(f"{out} is a symlink to nothing; give another folder")
    if exists and not is_folder:
        raise InputError(f"{out} is a file; give a folder")
    if is_folder and os.path.ismount(out):
        raise InputError(f"{out} is where a disk is mounted, which can't be replaced; give a folder in it")
    if is_folder and any(out.iterdir()) and not force:
        raise InputError(f"{out} is not empty; give another folder, or --force to replace it")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"the folder {out} can't be made: {above} is no folder that can be written to")


@contextlib.contextmanager
def whole_folder(out: Path, *, force: bool = False) -> Iterator[Path]:
    """An empty folder to write into, which becomes `out` at the end; after an error nothing is left of it.

    It lies beside `out` as `.NAME.partial`, and is locked. One that a killed run has left is used again, and what such
    a run had put aside is put back.

    Raises:
        InputError: there is something in `out`, and no `force`; it can't be made; or another run is writing it.
    """
    refuse_target(out, force=force)
    out = out.absolute() if not out.is_symlink() else out.resolve()
    beside, replaced = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.replaced")
    try:
        with _locked(beside, out):
            try:
                _put_back(replaced, out)
                refuse_target(out, force=force)
                _empty(beside)
                yield beside
                sync_folder(beside)
                _put_in_place(beside, out, replaced)
            except BaseException:
                shutil.rmtree(beside, ignore_errors=True)
                raise
    except OSError as error:
        raise explain_failure(error, out) from None


def refuse_file(out: Path, *, force: bool, suffixes: Sequence[str] = ()) -> None:
    """Raise InputError where a file can't be written, or would hurt what is there. Its folder is made."""
    if suffixes and out.suffix not in suffixes:
        raise InputError(f"{out} must be named {suffixes[0]}")
    if out.is_dir():
        raise InputError(f"{out} is a folder; give a file")
    if os.path.lexists(out) and not force:
        raise InputError(f"{out} is there already; give another file, or --force to replace it")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{out} can't be written: {above} is no folder that can be written to")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.absolute().parent):
            pass
    except OSError as error:
        raise explain_failure(error, out) from None


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


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[Path]:
    """A folder that one run at a time writes into; it is made where it is not there.

    Raises:
        InputError: another run is writing into it, or it can't be made.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(folder, folder))
        except OSError as error:
            raise explain_failure(error, folder) from None
        yield folder


@contextlib.contextmanager
def _locked(beside: Path, out: Path) -> Iterator[None]:
    """Hold the lock of a folder that is being written; the system gives it up with the process, however that ends."""
    while (handle := _lock(beside, out)) is None:
        pass
    try:
        yield
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


def _put_back(replaced: Path, out: Path) -> None:
    """What a killed run had put aside: old, where the new one is in its place; otherwise it is what was there."""
    if replaced.exists():
        if out.exists() and any(out.iterdir()):
            shutil.rmtree(replaced)
        else:
            replaced.rename(out)


def _put_in_place(beside: Path, out: Path, replaced: Path) -> None:
    if out.exists():
        out.rename(replaced)
    try:
        beside.rename(out)
    except OSError:
        if replaced.exists():
            replaced.rename(out)
        raise
    sync_file(out.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


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
