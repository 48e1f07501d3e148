"""The rule of `--out`: what commands write where, what they refuse, what `--force` does.

* **Nothing is deleted or replaced that the command did not write itself**, but for a file that is named itself and
  `--force`. A command knows its files again by their contents: see `surgery.written`.
* **A file** that is there already is refused, unless it is what would be written; `--force` replaces it.
* **A folder** must be new or empty. `--force` replaces what the command wrote there before, and leaves the rest as it
  is; something else in the way, or a file that was changed since, is refused. A compiled folder is replaced as a whole:
  it is refused where it holds anything else. `plot` adds figures to any folder. `evaluate` goes on in its own folder;
  to replace the results of another request takes `--force`.
* **One run at a time** writes to a target, beside it as `.NAME.partial` (or in it, as `.surgery.partial`), and puts
  everything in its place at the end: it is there whole, or not at all. What a killed run has left there is used again,
  or written over, by the next one; such names are the commands' own. After an error nothing is left, not even the
  folders that were made for it.
* Nothing is written outside the target, whatever links lie in it.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from surgery.errors import InputError
from surgery.files import explain_failure, failures_explained, hash_file, locked, sync_file, sync_folder, write_whole
from surgery.written import (
    COMPILE,
    STAGED,
    Sums,
    Written,
    files_in,
    forget_written,
    is_partial,
    read_written,
    write_written,
)


def refuse_file(out: Path, *, force: bool, suffixes: Sequence[str] = ()) -> None:
    """Raise InputError where a file can't be written, or would hurt what is there."""
    if suffixes and out.suffix not in suffixes:
        raise InputError(f"{out} must be named {suffixes[0]}")
    if out.is_dir():
        raise InputError(f"{out} is a folder; give a file")
    if os.path.lexists(out) and not force:
        raise InputError(f"{out} is there already; give another file, or --force to replace it")
    above = _refuse_above(out, f"{out} can't be written")
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise explain_failure(error, out) from None


def write_file(out: Path, content: bytes | str, *, force: bool = False) -> None:
    """Write a file, with its folders; one that is there with this very content is as good.

    Raises:
        InputError: there is something else, and no `force`; or it can't be written.
    """
    wanted = content if isinstance(content, bytes) else content.encode()
    try:
        if out.is_file() and not out.is_symlink() and out.read_bytes() == wanted:
            return
        refuse_file(out, force=force)
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, wanted)
    except OSError as error:
        raise explain_failure(error, out) from None


def refuse_folder(out: Path, command: str, *, force: bool) -> None:
    """Raise InputError where a folder can't be written, or holds something and there is no `force`."""
    is_folder = _is_folder(out)
    if is_folder and not force and not _is_left_over(out, command):
        what = "replace it" if command == COMPILE else "write into it"
        raise InputError(f"{out} is not empty; give another folder, or --force to {what}")
    if is_folder and command == COMPILE and os.path.ismount(out):
        raise InputError(f"{out} is where a disk is mounted, which can't be replaced; give a folder in it")
    if is_folder and command != COMPILE:
        if not os.access(out, os.W_OK):
            raise InputError(f"the folder {out} can't be written to")
    else:
        _refuse_above(out, f"the folder {out} can't be made")


@contextlib.contextmanager
def whole_folder(out: Path, *, force: bool = False) -> Iterator[Path]:
    """An empty folder to write into, which becomes `out` at the end; after an error nothing is left of it.

    It lies beside `out` as `.NAME.partial`, and is locked. One that a killed run has left is used again, and what such
    a run had put aside is put back.

    Raises:
        InputError: there is something in `out`, and no `force`, or it is not the commands'; it can't be made; or
            another run is writing it.
    """
    refuse_folder(out, COMPILE, force=force)
    refuse_foreign(out)
    out = _real(out)
    beside, replaced = _beside(out), out.with_name(f".{out.name}.replaced")
    with failures_explained(out), locked(beside, out):
        try:
            _put_back(replaced, out)
            refuse_folder(out, COMPILE, force=force)
            refuse_foreign(out)
            _empty(beside)
            yield beside
            sync_folder(beside)
            _put_in_place(beside, out, replaced)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


@contextlib.contextmanager
def added_files(
    out: Path, command: str, *, force: bool, request: str = "", beside_others: bool = False
) -> Iterator[Path]:
    """An empty folder to write into, whose files have their places in `out` at the end; after an error none has.

    With `force` what the command wrote there before gives way, and other files stay as they are. With `beside_others`
    all that is there stays, but for files that `force` replaces. `request` is noted with the files.

    Raises:
        InputError: there is something in `out`, or in the way; it can't be written; or another run is writing it.
    """
    refuse_folder(out, command, force=force or beside_others)
    out = _real(out)
    staged = out / STAGED if out.is_dir() else _beside(out)
    with failures_explained(out), locked(staged, out):
        try:
            refuse_folder(out, command, force=force or beside_others)
            _empty(staged)
            yield staged
            sync_folder(staged)
            _place(staged, out, command, request, force=force, beside_others=beside_others)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def own_folder(out: Path, command: str, request: str, *, force: bool) -> Iterator[None]:
    """A folder in which a command goes on where it was: locked, and marked as its own.

    After an error what the command has put there stays, for it to go on from; a folder with nothing in it goes.

    Raises:
        InputError: there is something in it and it is not the command's; it holds the results of another request, and
            there is no `force`; it can't be written; or another run is writing it.
    """
    _is_folder(out)
    _refuse_above(out, f"the folder {out} can't be made")
    out = _real(out)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(out, out))
            known = read_written(out, command)
            if known is None:
                if not _is_empty(out):
                    raise InputError(
                        f"{out} is not empty, and `surgery {command}` did not make it; give another folder"
                    )
                write_written(out, command, Written())
        except OSError as error:
            raise explain_failure(error, out) from None
        if known is not None and known.files and known.request != request and not force:
            raise InputError(
                f"{out} holds the results of another request; give another folder, or --force to replace them"
            )
        try:
            yield
        except BaseException:
            if not any(files_in(out)):
                forget_written(out, command)
            raise


@contextlib.contextmanager
def unfinished_runs(out: Path) -> Iterator[Path]:
    """The folder beside a file where runs that will write it keep what they have; one run at a time has it.

    It goes once nothing is in it.

    Raises:
        InputError: another run is going to write the file; or the folder can't be made.
    """
    folder = _beside(out.absolute())
    with failures_explained(out), locked(folder, out):
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()


def refuse_in_the_way(out: Path, names: Iterable[str], command: str, *, also: Mapping[str, Sums] | None = None) -> None:
    """Raise InputError where a file of one of these names can't be put in a folder without hurting what is there.

    A file is not hurt that the command wrote, or that is known by `also`.
    """
    known, fine = read_written(out, command) or Written(), Written(files=also or {})
    for name in names:
        within = out
        for part in Path(name).parts[:-1]:
            within = within / part
            if os.path.lexists(within) and (within.is_symlink() or not within.is_dir()):
                raise InputError(f"{within} is in the way; move it away, or give another folder")
        if os.path.lexists(out / name) and not (fine.owns(out, name) or known.owns(out, name)):
            raise InputError(
                f"{out / name} is not what `surgery {command}` wrote there; move it away, or give another folder"
            )


def _place(staged: Path, out: Path, command: str, request: str, *, force: bool, beside_others: bool) -> None:
    """Put files in their places; a run that is killed meanwhile leaves them listed, so that the next knows them."""
    new: dict[str, Sums] = {name: (hash_file(staged / name),) for name in files_in(staged)}
    if not out.exists():
        write_written(staged, command, Written(request, new))
        staged.rename(out)
        sync_file(out.parent)
        return
    before = read_written(out, command) or Written()
    own = {name: sums for name, sums in before.files.items() if before.owns(out, name)}
    refuse_in_the_way(out, new, command, also=new)
    changed = [name for name in new if os.path.lexists(out / name) and not Written(files=new).owns(out, name)]
    if changed and before.is_whole and not force:
        raise InputError(f"{out / changed[0]} is there already; give another folder, or --force to replace it")
    both = {name: (*own.get(name, ()), *new.get(name, ())) for name in {**own, **new}}
    write_written(out, command, Written(request, both, is_whole=False))
    for name in new:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).replace(out / name)
    stale = own.keys() - new.keys() if force and not beside_others else set[str]()
    for name in stale:
        _remove(out, name)
    left = {name: sums for name, sums in own.items() if name not in stale}
    write_written(out, command, Written(request, {**left, **new}))


def _remove(out: Path, name: str) -> None:
    """Remove a file, and the folders that it alone was in."""
    (out / name).unlink()
    with contextlib.suppress(OSError):
        for folder in list((out / name).parents)[: len(Path(name).parts) - 1]:
            folder.rmdir()


def _is_folder(out: Path) -> bool:
    """Whether there is a folder; raises InputError where there is something else."""
    try:
        out.resolve(strict=False)
        exists, is_folder = os.path.lexists(out), out.is_dir()
    except (OSError, RuntimeError):
        raise InputError(f"{out} is a loop of symlinks; give another folder") from None
    if exists and out.is_symlink() and not out.exists():
        raise InputError(f"{out} is a symlink to nothing; give another folder")
    if exists and not is_folder:
        raise InputError(f"{out} is a file; give a folder")
    return is_folder


def refuse_foreign(out: Path) -> None:
    """Raise InputError where a folder can't be replaced as a whole: something in it was not compiled."""
    known = read_written(out, COMPILE) or Written()
    foreign = next((name for name in files_in(out, with_partial=True) if not known.owns(out, name)), None)
    if foreign is not None:
        raise InputError(
            f"{out / foreign} is not what `surgery compile` wrote there; move it away, or give another folder"
        )


def _refuse_above(out: Path, said: str) -> Path:
    """The folder above that is there; raises InputError where nothing can be made in it."""
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{said}: {above} is no folder that can be written to")
    return above


def _is_empty(out: Path) -> bool:
    """Whether nothing is in a folder but what a killed run was writing."""
    return all(is_partial(path.name) for path in out.iterdir())


def _is_left_over(out: Path, command: str) -> bool:
    """Whether a folder is empty, or holds nothing but what a killed run of the command was putting there."""
    if command == COMPILE:
        return not any(out.iterdir())
    if _is_empty(out):
        return True
    known = read_written(out, command)
    return known is not None and not known.is_whole and all(known.owns(out, name) for name in files_in(out))


def _real(out: Path) -> Path:
    return out.resolve() if out.is_symlink() else out.absolute()


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


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
