"""Bytes from file to file, by the kernel where the system can: nothing passes through this process."""

import errno
import os
from collections.abc import Callable

CHUNK_BYTES = 2**26  # of one call, between two looks at the progress bar
BUFFER_BYTES = 2**20
UNSUPPORTED = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}

Copy = Callable[[int, int, int, int], int]  # source, target, offset in the source, size -> bytes copied


def copy_range(source: int, target: int, start: int, size: int, advance: Callable[[int], None]) -> None:
    """Append bytes `start` to `start + size` of one open file to another; `advance` is told of each step's bytes.

    Raises:
        EOFError: the source ends before.
        OSError: it can't be read or written.
    """
    ways = [way for way in (_copy_file_range, _sendfile) if way is not None]
    stop = start + size
    while start < stop:
        wanted = min(CHUNK_BYTES, stop - start)
        try:
            done = (ways[0] if ways else _read_and_write)(source, target, start, wanted)
        except OSError as error:
            if not ways or error.errno not in UNSUPPORTED:
                raise
            ways.pop(0)
            continue
        if done == 0:
            if not ways:
                raise EOFError("the file ends before its header says")
            ways.pop(0)  # some file systems answer 0 where they can't
        start += done
        advance(done)


def ignore_progress(size_bytes: int) -> None:
    """Nobody is told."""


def _by_copy_file_range(source: int, target: int, start: int, size: int) -> int:
    return os.copy_file_range(source, target, size, offset_src=start)


def _by_sendfile(source: int, target: int, start: int, size: int) -> int:
    return os.sendfile(target, source, start, size)


def _read_and_write(source: int, target: int, start: int, size: int) -> int:
    content = memoryview(os.pread(source, min(size, BUFFER_BYTES), start))
    written = 0
    while written < len(content):
        written += os.write(target, content[written:])
    return written


_copy_file_range: Copy | None = _by_copy_file_range if hasattr(os, "copy_file_range") else None
_sendfile: Copy | None = _by_sendfile if hasattr(os, "sendfile") else None
