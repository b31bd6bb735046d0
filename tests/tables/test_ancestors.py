"""The way to a home: what is known of the directories on it, and for how long."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import temporary_directory

from cvm_qmail.tables.ancestors import RARELY, Directories, lacks_list
from cvm_qmail.tables.dependencies import Request
from cvm_qmail.tables.watch import Watch


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_directory() as directory:
        (directory / "users/joe").mkdir(parents=True)
        yield directory / "users/joe"


@pytest.fixture
def directories() -> Directories:
    return Directories(Watch())


def at(path: Path) -> bytes:
    return os.fsencode(path)


def long_ago(path: Path) -> os.stat_result:
    """The status of a directory as it would be had it last changed long ago."""
    return os.stat_result(list(os.lstat(path)), {"st_mtime_ns": 10**9, "st_ctime_ns": 10**9})


# -- ancestors -----------------------------------------------------------------------------------------


def test_ancestors_are_all_directories_from_the_root_on(directories: Directories, home: Path) -> None:
    found = directories.ancestors(at(home))
    assert found is not None
    stats = [os.stat(directory) for directory in (*reversed(home.parents), home)]
    assert [(st.st_dev, st.st_ino, st.st_uid, st.st_mode) for st in stats] == [
        (directory.device, directory.inode, directory.st_uid, directory.st_mode) for directory in found.directories
    ]


def test_ancestors_are_open_to_all_while_every_user_may_search_each(directories: Directories, home: Path) -> None:
    for mode, open_to_all in ((0o755, True), (0o711, True), (0o750, False), (0o611, False)):
        home.parent.chmod(mode)
        directories.begin(Request(0.0, int))
        directories._watch.look()
        found = directories.ancestors(at(home))
        assert found is not None
        assert found.open_to_all is open_to_all


@pytest.mark.parametrize("path", [b"relative", b"", b"/tmp//x", b"/tmp/../tmp", b"/tmp/.", b"/nowhere/at/all"])
def test_an_odd_path_has_no_ancestors(directories: Directories, path: bytes) -> None:
    assert directories.ancestors(path) is None


def test_below_a_link_or_a_file_there_are_no_ancestors(directories: Directories, home: Path) -> None:
    (home.parent / "link").symlink_to("joe")
    (home.parent / "file").touch()
    for name in ("link", "file", "file/x"):
        assert directories.ancestors(at(home.parent / name)) is None, name


def test_a_directory_that_becomes_a_link_is_seen_at_once(directories: Directories, home: Path) -> None:
    assert directories.ancestors(at(home)) is not None
    home.rename(home.with_name("moved"))
    home.symlink_to("moved")
    directories._watch.look()
    assert directories.ancestors(at(home)) is None


# -- names of .qmail files ----------------------------------------------------------------------------


def names(directories: Directories, home: Path, st: os.stat_result) -> frozenset[bytes] | None:
    """What one more request gets to know."""
    directories.begin(Request(0.0, int))
    directories._seen[at(home)] = st
    directories._uses[at(home)] = RARELY
    return directories.names(at(home), st)


def test_a_home_that_is_used_rarely_is_not_listed(directories: Directories, home: Path) -> None:
    st = long_ago(home)
    for _ in range(RARELY):
        directories.begin(Request(0.0, int))
        directories._seen[at(home)] = st
        assert directories.names(at(home), st) is None
    assert [names(directories, home, st) for _ in range(2)] == [None, frozenset()]


def test_a_home_that_is_used_often_and_unchanged_is_listed(directories: Directories, home: Path) -> None:
    for name in (".qmail", ".qmail-A", ".QMAIL-b", "mail", ".qmai"):
        (home / name).touch()
    st = long_ago(home)
    assert [names(directories, home, st) for _ in range(3)] == [None, *2 * [{b".qmail", b".qmail-a", b".qmail-b"}]]


def test_a_home_that_changed_is_not_known_again(directories: Directories, home: Path) -> None:
    st = long_ago(home)
    assert [names(directories, home, st) for _ in range(2)] == [None, frozenset()]
    changed = os.stat_result(list(st), {"st_mtime_ns": st.st_mtime_ns + 1, "st_ctime_ns": st.st_ctime_ns})
    assert names(directories, home, changed) is None
    assert names(directories, home, os.lstat(home)) is None, "changed a moment ago"


def test_a_name_that_is_not_ascii_makes_a_listing_worthless(directories: Directories, home: Path) -> None:
    (home / ".qmail-\N{KELVIN SIGN}").touch()
    assert [names(directories, home, long_ago(home)) for _ in range(2)] == [None, None]


def test_no_more_names_than_the_bound_are_kept(
    directories: Directories, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvm_qmail.tables.ancestors.NAMES_LIMIT", 25)
    for number in range(10):
        (home / f".qmail-{number}").touch()
    homes = [home.with_name(f"home{number}") for number in range(30)]
    for other in homes:
        shutil.copytree(home, other)
        for _ in range(2):
            names(directories, other, long_ago(other))
        assert 0 < sum(1 + len(known or ()) for _, known in directories._names.values()) <= 25


# -- access lists -------------------------------------------------------------------------------------


@pytest.mark.peer("setfacl")
def test_an_access_list_is_seen_by_path_and_by_descriptor(home: Path) -> None:
    fd = os.open(home, os.O_RDONLY)
    try:
        assert lacks_list(at(home))
        assert lacks_list(fd)
        subprocess.run(["setfacl", "-m", "u:5001:x", home], check=True)
        assert not lacks_list(at(home))
        assert not lacks_list(fd)
    finally:
        os.close(fd)


def test_what_cannot_be_asked_is_not_free_of_lists(home: Path) -> None:
    assert not lacks_list(at(home / "nowhere"))


@pytest.mark.peer("setfacl")
def test_an_access_list_given_a_moment_later_is_seen(directories: Directories, home: Path) -> None:
    assert directories.without_list(at(home), os.lstat(home))
    subprocess.run(["setfacl", "-m", "u:5001:x", home], check=True)
    assert not directories.without_list(at(home), os.lstat(home))
