"""Whether anything has changed: one question in the place of stats."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hosts import temporary_directory

from cvm_qmail.tables.watch import Watch

pytestmark = pytest.mark.root


@pytest.fixture
def tree() -> Iterator[Path]:
    """A directory a/b with a file c in it, and a file beside them."""
    with temporary_directory() as root:
        (root / "a/b").mkdir(parents=True)
        (root / "a/b/c").write_text("old\n")
        (root / "beside").write_text("beside\n")
        yield root


def replaced(root: Path) -> None:
    (root / "new").write_text("new\n")
    (root / "new").rename(root / "a/b/c")


def written(root: Path) -> None:
    (root / "a/b/c").write_text("new\n")


def removed(root: Path) -> None:
    (root / "a/b/c").unlink()


def mode_of_the_file(root: Path) -> None:
    (root / "a/b/c").chmod(0)


def mode_of_its_directory(root: Path) -> None:
    (root / "a/b").chmod(0o700)


def mode_of_the_directory_above(root: Path) -> None:
    (root / "a").chmod(0o700)


def another_tree_in_its_place(root: Path) -> None:
    (root / "a").rename(root / "gone")
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/c").write_text("new\n")


def written_by_another_name(root: Path) -> None:
    os.link(root / "a/b/c", root / "other")
    (root / "other").write_text("new\n")


@pytest.mark.parametrize(
    "change",
    [
        replaced,
        written,
        removed,
        mode_of_the_file,
        mode_of_its_directory,
        mode_of_the_directory_above,
        another_tree_in_its_place,
        written_by_another_name,
    ],
)
def test_a_change_makes_a_new_stamp(tree: Path, change: Callable[[Path], None]) -> None:
    changes = Watch()
    assert changes.cover(bytes(tree / "a/b/c"))
    before = changes.look()
    change(tree)
    assert changes.look() != before


def test_what_is_beside_makes_none(tree: Path) -> None:
    changes = Watch()
    assert changes.cover(bytes(tree / "a/b/c"))
    before = changes.look()
    (tree / "beside").write_text("changed\n")
    (tree / "a/b/new").write_text("new\n")
    (tree / "beside").unlink()
    assert changes.look() == before


def test_a_file_that_appears_makes_a_new_stamp(tree: Path) -> None:
    changes = Watch()
    assert changes.cover(bytes(tree / "a/b/missing"))
    before = changes.look()
    (tree / "a/b/missing").write_text("here\n")
    assert changes.look() != before


@pytest.mark.parametrize("path", ["a/link/c", "a/b/./c", "a//b/c", "a/missing/c"])
def test_a_path_that_may_come_to_mean_something_else_unseen_is_not_covered(tree: Path, path: str) -> None:
    (tree / "a/link").symlink_to("b")
    assert not Watch().cover(bytes(tree) + b"/" + path.encode())


def test_a_directory_that_somebody_holds_open_is_not_watched_in_the_place_of_the_new_one(tree: Path) -> None:
    changes = Watch()
    assert changes.cover_directory(bytes(tree / "a/b"))
    held = os.open(tree / "a/b", os.O_RDONLY)
    (tree / "a/b/c").unlink()
    (tree / "a/b").rmdir()
    (tree / "a/b").mkdir()
    changes.look()
    assert changes.cover_directory(bytes(tree / "a/b"))
    before = changes.look()
    (tree / "a/b").chmod(0o700)
    assert changes.look() != before
    os.close(held)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_without_a_descriptor_nothing_is_covered_and_none_is_lost(tree: Path, left: int) -> None:
    changes = Watch()
    path = bytes(tree / "a/b/c")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 32, hard))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(left):
            os.close(taken.pop())
        for _ in range(5):
            assert not changes.cover(path)
        again = [os.open("/dev/null", os.O_RDONLY) for _ in range(left)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    for fd in again:
        os.close(fd)


def test_with_no_directories_allowed_nothing_is_watched(tree: Path) -> None:
    changes = Watch(directories=0)
    assert not changes.cover(bytes(tree / "a/b/c"))
    assert not changes.watching
