"""Whether a file is still the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts import temporary_directory

from cvm_qmail.tables.identity import Identity, identity, unchanged


def same(path: bytes, before: Identity) -> bool:
    marked: list[bytes] = []
    answer = unchanged([(path, before)], marked.append)
    assert marked == [path], "it is known where it may hang"
    return answer


@pytest.fixture
def file() -> Iterator[Path]:
    with temporary_directory() as directory:
        (directory / "file").write_bytes(b"text")
        yield directory / "file"


def replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"text")
    old = file.stat()
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.rename(file)


CHANGES: list[Callable[[Path], object]] = [
    lambda file: file.write_bytes(b"other text"),
    lambda file: os.utime(file, ns=(0, file.stat().st_mtime_ns + 1)),
    replaced,
    Path.unlink,
    lambda file: file.rename(file.with_name("gone")).with_name("file").symlink_to("gone"),
]


def test_a_file_that_nobody_touched_is_the_same(file: Path) -> None:
    assert same(os.fsencode(file), identity(file.stat()))
    file.read_bytes()
    assert same(os.fsencode(file), identity(file.stat()))


@pytest.mark.parametrize("change", CHANGES, ids=["written", "touched", "replaced", "removed", "moved behind a link"])
def test_a_file_that_was_changed_is_not_the_same(file: Path, change: Callable[[Path], object]) -> None:
    before = identity(file.stat())
    change(file)
    assert not same(os.fsencode(file), before)


def test_the_way_to_a_file_may_vanish(file: Path) -> None:
    before = identity(file.stat())
    file.unlink()
    file.parent.rmdir()
    assert not same(os.fsencode(file), before)
    file.parent.mkdir()  # its owner removes it


def test_one_change_is_enough(file: Path) -> None:
    here, other = os.fsencode(file), os.fsencode(file.parent)
    both = [(path, identity(os.lstat(path))) for path in (here, other)]
    assert unchanged(both, lambda _: None)
    file.write_bytes(b"other text")
    assert not unchanged(both, lambda _: None)
    assert not unchanged(both[::-1], lambda _: None)
