"""What is kept of a file is kept for exactly as long as the file is the same."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import temporary_directory
from serving import PATIENCE, until

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.cached_file import CachedFile, content
from cvm_qmail.tables.identity import SETTLED
from cvm_qmail.tables.watch import Watch


class Counting(CachedFile[bytes]):
    """Counts how often it reads."""

    def __init__(self, path: Path, changes: Watch | None = None) -> None:
        self.reads = 0
        super().__init__(os.fsencode(path), "control", self._make_and_count, watch=changes)

    def _make_and_count(self, fd: int, size: int, path: bytes) -> bytes:
        self.reads += 1
        return content(fd, size, path)


@pytest.fixture
def path() -> Iterator[Path]:
    with temporary_directory() as directory:
        (directory / "file").write_bytes(b"one")
        yield directory / "file"


def settled(path: Path) -> bool:
    return path.stat().st_ctime_ns < time.time_ns() - SETTLED


def test_a_file_that_changed_just_now_is_read_every_time(path: Path) -> None:
    kept = Counting(path)
    assert [kept.now() for _ in range(5)] == [b"one"] * 5
    assert kept.reads == 5


def test_a_file_that_is_old_enough_is_read_once(path: Path) -> None:
    kept = Counting(path)
    until(lambda: settled(path))
    assert [kept.now() for _ in range(5)] == [b"one"] * 5
    assert kept.reads == 1
    path.write_bytes(b"two")
    assert [kept.now() for _ in range(3)] == [b"two"] * 3


def test_an_old_mtime_does_not_make_a_new_file_old(path: Path) -> None:
    kept = Counting(path)
    os.utime(path, (0, 0))
    for text in (b"one", b"two", b"six") * 50:
        with path.open("r+b") as file:
            file.write(text)
        os.utime(path, (0, 0))
        assert kept.now() == text


def test_an_mtime_in_the_future_is_no_reason_to_keep_anything(path: Path) -> None:
    kept = Counting(path)
    for text in (b"one", b"two") * 20:
        path.write_bytes(text)
        os.utime(path, (2**32, 2**32))
        assert kept.now() == text


@pytest.mark.parametrize("changes", [False, True])
def test_a_file_that_goes_and_comes(path: Path, changes: bool) -> None:
    vouching = Watch() if changes else None
    kept = Counting(path, vouching)
    for _ in range(20):
        path.unlink()
        if vouching is not None:
            vouching.look()
        assert kept.now() is None
        path.write_bytes(b"one")
        if vouching is not None:
            vouching.look()
        assert kept.now() == b"one"


def test_what_changes_all_the_time_while_it_is_read_is_a_temporary_failure(path: Path) -> None:
    def make(fd: int, size: int, _: bytes) -> bytes:
        data = content(fd, size, b"")
        path.write_bytes(data + b"x")
        return data

    with pytest.raises(Unavailable, match="changes while it is read"):
        CachedFile(os.fsencode(path), "control", make).now()


def test_what_changes_once_while_it_is_read_is_read_again(path: Path) -> None:
    changed = []

    def make(fd: int, size: int, _: bytes) -> bytes:
        data = content(fd, size, b"")
        if not changed:
            changed.append(path.write_bytes(b"two"))
        return data

    assert CachedFile(os.fsencode(path), "control", make).now() == b"two"


def test_no_version_that_never_was_is_ever_seen(path: Path) -> None:
    """Replaced as fast as can be: one of the versions, never a mixture."""
    versions = [b"a" * 40_000, b"b" * 20_000]
    stop = threading.Event()
    path.write_bytes(versions[0])

    def writes() -> None:
        while not stop.is_set():
            for version in versions:
                temporary = path.with_name("new")
                temporary.write_bytes(version)
                temporary.rename(path)

    thread = threading.Thread(target=writes)
    thread.start()
    try:
        kept = CachedFile(os.fsencode(path), "control", content)
        assert {kept.now() for _ in range(500)} <= set(versions)
    finally:
        stop.set()
        thread.join(PATIENCE)


def test_an_error_is_reported_and_forgotten(path: Path) -> None:
    kept = Counting(path)
    assert kept.now() == b"one"
    path.unlink()
    path.symlink_to("file")
    with pytest.raises(Unavailable, match="control"):
        kept.now()
    path.unlink()
    path.write_bytes(b"two")
    assert kept.now() == b"two"


def test_no_descriptor_is_lost(path: Path) -> None:
    def make(fd: int, size: int, _: bytes) -> bytes:
        os.close(fd)
        raise OSError(5, "made up")

    gc.collect()  # of what other tests have left
    before = os.listdir("/proc/self/fd")
    kept = Counting(path)
    failing = CachedFile(os.fsencode(path), "control", make)
    for _ in range(20):
        kept.now()
        with pytest.raises(Unavailable):
            failing.now()
    assert os.listdir("/proc/self/fd") == before


def test_values_that_are_equal_stay_the_same_object(path: Path) -> None:
    kept = Counting(path)
    first = kept.now()
    path.write_bytes(b"one")
    assert kept.now() is first
