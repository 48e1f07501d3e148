"""The state of a run on disk: one file, written beside and renamed, so that the last good one always stays."""

import contextlib
import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.files import sync_file

NAME = "state.pt"


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write plain data and tensors; `state["step"]` says how many steps were taken.

    Raises:
        InputError: the disk is full, or refuses the file; what was there is still there.
    """
    path, beside = folder / NAME, folder / f".{NAME}.partial"
    try:
        torch.save(dict(state), beside)
        sync_file(beside)
        beside.replace(path)
        sync_file(folder)
    except (OSError, RuntimeError) as error:  # torch's own writer tells of a full disk by RuntimeError
        raise InputError(_failure_text(folder, state["step"], error)) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _failure_text(folder: Path, step: int, error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    is_full = number in (errno.ENOSPC, errno.EDQUOT) or number is None
    reason = "the disk is full" if is_full else str(error)
    kept = "the last good one is still there" if (folder / NAME).exists() else "nothing was kept before"
    return (
        f"the state of step {step} can't be kept in {folder}: {reason}; {kept}: make room, and give the same command "
        "again to go on"
    )


def read_state(folder: Path) -> dict[str, Any] | None:
    """What `write_state` wrote; None where nothing was.

    Raises:
        InputError: it is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    with told_as(f"{path} can't be read; remove it to begin again"):
        found: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        return found
