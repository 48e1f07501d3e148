"""Files and folders that are there whole or not at all: written beside, then renamed."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from surgery.errors import InputError


def refuse_target(out: Path, *, force: bool) -> None:
    """Raise InputError where writing a folder would hurt what is there, or can't be done."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise InputError(f"{out} is not empty; give another folder, or --force to replace it")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"the folder {out} can't be made: {above} is no folder that can be written to")


@contextlib.contextmanager
def whole_folder(out: Path, *, force: bool = False) -> Iterator[Path]:
    """An empty folder to write into, which becomes `out` at the end; after an error nothing is left of it.

    Raises:
        InputError: there is something in `out`, and no `force`; or the folder can't be made.
    """
    refuse_target(out, force=force)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.absolute().parent))
    try:
        yield beside
        beside.chmod(0o777 & ~_umask())
        replaced = beside.with_suffix(".replaced")
        if out.exists():
            out.rename(replaced)
        try:
            beside.rename(out)
        except OSError:
            if replaced.exists():
                replaced.rename(out)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file, replacing one that is there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(content if isinstance(content, bytes) else content.encode())
        beside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
