"""Bytes are copied as they are, whichever way the system offers."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgery.checkpoint import copy_bytes
from surgery.checkpoint.copy_bytes import UNSUPPORTED, copy_range

WAYS = {
    "copy_file_range": ("_copy_file_range",),
    "sendfile": ("_sendfile",),
    "read and write": (),
}
CONTENT = bytes(range(256)) * 8


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """The only way that is left, in steps of 100 bytes."""
    for name in ("_copy_file_range", "_sendfile"):
        if name not in WAYS[request.param]:
            monkeypatch.setattr(copy_bytes, name, None)
        elif getattr(copy_bytes, name) is None:
            pytest.skip(f"this system has no {request.param}")
    monkeypatch.setattr(copy_bytes, "CHUNK_BYTES", 100)
    return request.param


def copied(folder, ranges, content=CONTENT):
    """What copying ranges of a file into an empty one makes, and the steps that were told of."""
    (folder / "source").write_bytes(content)
    steps = []
    with (folder / "source").open("rb") as source, (folder / "target").open("wb", buffering=0) as target:
        for start, size in ranges:
            copy_range(source.fileno(), target.fileno(), start, size, steps.append)
    return (folder / "target").read_bytes(), steps


def expected(ranges):
    return b"".join(CONTENT[start : start + size] for start, size in ranges)


def test_every_way_copies_the_bytes_of_a_range(way, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranges")
    starts = st.integers(0, len(CONTENT))
    ranges = starts.flatmap(lambda start: st.tuples(st.just(start), st.integers(0, len(CONTENT) - start)))

    @settings(max_examples=30)
    @given(st.lists(ranges, max_size=5))
    def law(drawn):
        content, steps = copied(folder, drawn)
        assert content == expected(drawn)
        assert sum(steps) == len(content) and all(0 < step <= 100 for step in steps)

    law()


def test_no_bytes_are_no_step(way, tmp_path):
    assert copied(tmp_path, [(0, 0), (len(CONTENT), 0), (10**9, 0)]) == (b"", [])


def test_what_the_target_holds_already_stays_before(way, tmp_path):
    with (tmp_path / "source").open("w+b") as source, (tmp_path / "target").open("wb", buffering=0) as target:
        source.write(CONTENT)
        source.flush()
        os.write(target.fileno(), b"header")
        copy_range(source.fileno(), target.fileno(), 7, 300, lambda size: None)
        os.write(target.fileno(), b"tail")
    assert (tmp_path / "target").read_bytes() == b"header" + CONTENT[7:307] + b"tail"


def test_a_source_that_ends_before_is_an_error(way, tmp_path):
    with pytest.raises(EOFError, match="the file ends before its header says"):
        copied(tmp_path, [(0, len(CONTENT) + 1)])
    assert (tmp_path / "target").read_bytes() == CONTENT


def fails_after(number, error):
    """A way that copies 3 bytes a call, and raises at a call."""
    calls = []

    def copy(source, target, start, size):
        if len(calls) == number:
            raise OSError(error, os.strerror(error))
        calls.append(start)
        return os.write(target, os.pread(source, min(3, size), start))

    return copy


@pytest.mark.parametrize("error", sorted(UNSUPPORTED), ids=errno.errorcode.get)
@pytest.mark.parametrize("number", [0, 2])
def test_a_way_that_does_not_work_here_is_followed_by_the_next_one(monkeypatch, tmp_path, error, number):
    monkeypatch.setattr(copy_bytes, "_copy_file_range", fails_after(number, error))
    monkeypatch.setattr(copy_bytes, "_sendfile", fails_after(number, error))
    content, steps = copied(tmp_path, [(5, 100), (50, 20)])
    assert content == expected([(5, 100), (50, 20)]) and steps[: 2 * number] == [3] * 2 * number


def test_a_way_that_copies_nothing_is_followed_by_the_next_one(monkeypatch, tmp_path):
    """Some file systems answer 0 where they can't (FUSE, /proc)."""
    monkeypatch.setattr(copy_bytes, "_copy_file_range", lambda *args: 0)
    monkeypatch.setattr(copy_bytes, "_sendfile", lambda *args: 0)
    assert copied(tmp_path, [(5, 100)])[0] == expected([(5, 100)])


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EFBIG], ids=errno.errorcode.get)
def test_a_disk_that_fails_is_an_error_at_once(monkeypatch, tmp_path, error):
    monkeypatch.setattr(copy_bytes, "_copy_file_range", fails_after(1, error))
    monkeypatch.setattr(copy_bytes, "_sendfile", None)
    with pytest.raises(OSError, match=os.strerror(error)):
        copied(tmp_path, [(0, 100)])


def test_short_writes_are_carried_on(monkeypatch, tmp_path):
    monkeypatch.setattr(copy_bytes, "_copy_file_range", None)
    monkeypatch.setattr(copy_bytes, "_sendfile", None)
    write = os.write
    monkeypatch.setattr(os, "write", lambda target, content: write(target, content[:7]))
    assert copied(tmp_path, [(5, 100)])[0] == expected([(5, 100)])
