"""The way to a home: what is known of the folders on it, and for how long."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import a_folder

from cvm_qmail.tables.changes import Changes
from cvm_qmail.tables.folders import Folders, lacks_list
from cvm_qmail.tables.identity import identity


@pytest.fixture
def home() -> Iterator[Path]:
    with a_folder() as folder:
        (folder / "users/joe").mkdir(parents=True)
        yield folder / "users/joe"


@pytest.fixture
def folders() -> Folders:
    return Folders(Changes())


def at(path: Path) -> bytes:
    return os.fsencode(path)


def long_ago(path: Path) -> os.stat_result:
    """The status of a folder as it would be had it last changed long ago."""
    return os.stat_result(list(os.lstat(path)), {"st_mtime_ns": 10**9, "st_ctime_ns": 10**9})


# -- ways ---------------------------------------------------------------------------------------------


def test_a_way_tells_each_folder_from_the_root_on(folders: Folders, home: Path) -> None:
    way = folders.way(at(home))
    assert way is not None
    stats = [os.stat(folder) for folder in (*reversed(home.parents), home)]
    assert [(st.st_dev, st.st_ino, st.st_uid, st.st_mode) for st in stats] == [
        (folder.device, folder.inode, folder.st_uid, folder.st_mode) for folder in way.folders
    ]


def test_a_way_is_open_to_all_while_everybody_may_search_each_folder(folders: Folders, home: Path) -> None:
    for mode, open_to_all in ((0o755, True), (0o711, True), (0o750, False), (0o611, False)):
        home.parent.chmod(mode)
        folders.begin()
        folders._changes.look()
        way = folders.way(at(home))
        assert way is not None
        assert way.open_to_all is open_to_all


@pytest.mark.parametrize("path", [b"relative", b"", b"/tmp//x", b"/tmp/../tmp", b"/tmp/.", b"/nowhere/at/all"])
def test_an_odd_path_is_no_way(folders: Folders, path: bytes) -> None:
    assert folders.way(path) is None


def test_a_link_or_a_file_on_the_way_is_no_way(folders: Folders, home: Path) -> None:
    (home.parent / "link").symlink_to("joe")
    (home.parent / "file").touch()
    for name in ("link", "file", "file/x"):
        assert folders.way(at(home.parent / name)) is None, name


def test_a_folder_that_becomes_a_link_is_seen_at_once(folders: Folders, home: Path) -> None:
    assert folders.way(at(home)) is not None
    home.rename(home.with_name("moved"))
    home.symlink_to("moved")
    folders._changes.look()
    assert folders.way(at(home)) is None


# -- names of .qmail files ----------------------------------------------------------------------------


def names(folders: Folders, home: Path, st: os.stat_result) -> frozenset[bytes] | None:
    """What one more request gets to know."""
    folders.begin()
    folders.rely(at(home), st)
    folders._seen[at(home)] = st
    return folders.names(at(home), st)


def test_a_home_met_twice_unchanged_is_listed(folders: Folders, home: Path) -> None:
    for name in (".qmail", ".qmail-A", ".QMAIL-b", "mail", ".qmai"):
        (home / name).touch()
    st = long_ago(home)
    assert [names(folders, home, st) for _ in range(3)] == [None, *2 * [{b".qmail", b".qmail-a", b".qmail-b"}]]


def test_a_home_that_changed_is_not_known_again(folders: Folders, home: Path) -> None:
    st = long_ago(home)
    assert [names(folders, home, st) for _ in range(2)] == [None, frozenset()]
    changed = os.stat_result(list(st), {"st_mtime_ns": st.st_mtime_ns + 1, "st_ctime_ns": st.st_ctime_ns})
    assert names(folders, home, changed) is None
    assert names(folders, home, os.lstat(home)) is None, "changed a moment ago"


def test_a_name_that_is_not_ascii_makes_a_listing_worthless(folders: Folders, home: Path) -> None:
    (home / ".qmail-\N{KELVIN SIGN}").touch()
    assert [names(folders, home, long_ago(home)) for _ in range(2)] == [None, None]


def test_no_more_names_than_the_bound_are_kept(folders: Folders, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvm_qmail.tables.folders.NAMES_LIMIT", 25)
    for number in range(10):
        (home / f".qmail-{number}").touch()
    homes = [home.with_name(f"home{number}") for number in range(30)]
    for other in homes:
        shutil.copytree(home, other)
        for _ in range(2):
            names(folders, other, long_ago(other))
        assert sum(1 + len(known or ()) for _, known in folders._names.values()) <= 25


# -- what an answer rests on --------------------------------------------------------------------------


def test_what_an_answer_rests_on_is_named_with_its_identity(folders: Folders, home: Path) -> None:
    st = long_ago(home)
    folders.begin()
    folders.rely(at(home), st)
    assert folders.relied_on == ((at(home), identity(st)),)
    folders.begin()
    assert not folders.relied_on
    assert folders.relied_on is not None


def test_what_changed_a_moment_ago_cannot_be_relied_on(folders: Folders, home: Path) -> None:
    folders.begin()
    folders.rely(at(home), os.lstat(home))
    assert folders.relied_on is None
    folders.rely(at(home), long_ago(home))
    assert folders.relied_on is None, "once in doubt, in doubt until the next request"


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
def test_an_access_list_given_a_moment_later_is_seen(folders: Folders, home: Path) -> None:
    assert folders.without_list(at(home), os.lstat(home))
    subprocess.run(["setfacl", "-m", "u:5001:x", home], check=True)
    assert not folders.without_list(at(home), os.lstat(home))
