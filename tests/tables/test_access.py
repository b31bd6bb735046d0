"""The file system as one user sees it: every kind of thing, every error."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hosts import Host

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.dotqmail import DotQmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables import access
from cvm_qmail.tables.door import Rights, Tables
from cvm_qmail.tables.errors import REFUSED, TEMPORARY

pytestmark = pytest.mark.root

JOE = Rights(5001, 5001)
NAME = b".qmail-it"


def dotqmail(host: Host, name: bytes = NAME, rights: Rights = JOE) -> DotQmail | None:
    """What a fresh pair of eyes finds in joe's home."""
    tables = Tables(Settings.from_environment(host.environment))
    tables.request()
    return tables.home(os.fsencode(host.root / "home/joe"), rights).files.get(name)


def place(host: Host) -> Path:
    return host.root / "home/joe" / os.fsdecode(NAME)


# -- .qmail files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, 70_000])
def test_a_plain_file_is_read_whole(host: Host, size: int) -> None:
    host.file("home/joe/.qmail-it", b"x" * size, uid=5001, gid=5001, mode=0o640)
    assert dotqmail(host) == DotQmail(0o100640, b"x" * size)


def test_what_is_not_a_plain_file_is_skipped(host: Host) -> None:
    assert dotqmail(host) is None
    place(host).mkdir()
    assert dotqmail(host) is None
    place(host).rmdir()
    os.mkfifo(place(host))
    assert dotqmail(host) is None
    place(host).unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(place(host)))
        assert dotqmail(host) is None
    place(host).unlink()
    os.mknod(place(host), 0o20666, os.makedev(1, 3))
    assert dotqmail(host) is None


@pytest.mark.parametrize("target", ["nowhere", ".qmail-it", "/proc/self/nothing", "x" * 300, ".qmail-foo/x"])
def test_a_link_that_leads_nowhere_is_skipped(host: Host, target: str) -> None:
    place(host).symlink_to(target)
    assert dotqmail(host) is None


def test_a_link_is_followed(host: Host) -> None:
    host.file("elsewhere", b"./x\n", mode=0o604)
    place(host).symlink_to(host.root / "elsewhere")
    assert dotqmail(host) == DotQmail(0o100604, b"./x\n")


@pytest.mark.parametrize("name", [b".qmail-" + b"x" * 249, b".qmail-foo/x", b".qmail-a/" * 600])
def test_a_name_that_cannot_be_is_skipped(host: Host, name: bytes) -> None:
    assert dotqmail(host, name) is None


def test_a_file_that_may_not_be_read_is_a_temporary_failure(host: Host) -> None:
    host.file("home/joe/.qmail-it", mode=0o600)
    with pytest.raises(Unavailable) as error:
        dotqmail(host)
    assert (error.value.reason, error.value.where) == ("dotqmail-denied", os.fsencode(place(host)))


def test_a_file_of_any_size_is_a_temporary_failure_and_not_read(host: Host) -> None:
    with place(host).open("wb") as huge:
        huge.truncate(1 << 40)
    os.chown(place(host), 5001, 5001)
    with pytest.raises(Unavailable, match="dotqmail"):
        dotqmail(host)


@pytest.mark.root
def test_root_opens_nothing_but_plain_files_for_others(host: Host) -> None:
    """A link in a user's directory may lead to a device of root's."""
    host.directory("home/joe")
    path = os.fsencode(host.root / "home/joe/x")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
    tables = Tables(Settings.from_environment(host.environment))
    looking = partial(tables.as_user, tables.own, os.path.dirname(path))
    for look in (
        lambda: tables.file(path),
        lambda: looking(lambda looks: looks.file(path)),
        lambda: looking(lambda looks: looks.cdb(path)),
    ):
        tables.request()
        with pytest.raises(Unavailable, match="not a regular file"):
            look()


def test_odd_bytes_in_names_are_just_bytes(host: Host) -> None:
    name = b".qmail-\xff\xfe caf\xc3\xa9"
    path = os.fsencode(host.root / "home/joe") + b"/" + name
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.chmod(path, 0o644)
    assert dotqmail(host, name) == DotQmail(0o100644, b"")


# -- ways that change ---------------------------------------------------------------------------------


def test_a_way_that_leads_elsewhere_since_it_was_looked_at_is_gone_with_the_users_rights(host: Host) -> None:
    host.directory("users/secret/joe")
    host.file("users/secret/joe/.qmail-it", b"./x\n")
    (host.root / "users/secret").chmod(0o700)
    tables = Tables(Settings.from_environment(host.environment))
    tables.request()
    home = tables.home(os.fsencode(host.root / "home/joe"), JOE)
    (host.root / "home").rename(host.root / "moved")
    (host.root / "home").symlink_to("users/secret")
    with pytest.raises(Unavailable, match="dotqmail-denied"):
        home.files.get(NAME)


# -- errors -------------------------------------------------------------------------------------------


@pytest.fixture
def failing(host: Host, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes every open(2) of joe's .qmail-it fail with one error."""
    host.file("home/joe/.qmail-it")
    real = os.open

    def fail(number: int) -> None:
        def opens(path: bytes, flags: int = os.O_RDONLY, *more: int) -> int:
            if isinstance(path, bytes) and path.endswith(NAME):
                raise OSError(number, os.strerror(number), path)
            return real(path, flags, *more)

        monkeypatch.setattr(os, "open", opens)
        monkeypatch.setattr(access, "open_without_links", opens)

    return fail


FOR_NOW = sorted(TEMPORARY | REFUSED)
FOR_GOOD = sorted(set(errno.errorcode) - TEMPORARY - REFUSED)


@pytest.mark.parametrize("number", FOR_NOW, ids=errno.errorcode.__getitem__)
def test_an_open_that_fails_for_now_is_a_temporary_failure(
    host: Host, failing: Callable[[int], None], number: int
) -> None:
    failing(number)
    with pytest.raises(Unavailable) as error:
        dotqmail(host)
    assert error.value.reason == ("dotqmail-denied" if number in REFUSED else "dotqmail")


@pytest.mark.parametrize("number", FOR_GOOD, ids=errno.errorcode.__getitem__)
def test_an_open_that_fails_for_good_is_skipped(host: Host, failing: Callable[[int], None], number: int) -> None:
    failing(number)
    assert dotqmail(host) is None


# -- homes and their owners ---------------------------------------------------------------------------


def owner(host: Host, home: bytes) -> int | None:
    tables = Tables(Settings.from_environment(host.environment))
    tables.request()
    return tables.owners().get(home)


def test_the_owner_is_that_of_what_the_path_leads_to(host: Host) -> None:
    home = host.root / "home/joe"
    (host.root / "home/link").symlink_to("joe")
    (host.root / "home/loop").symlink_to("loop")
    for path, uid in {
        home: 5001,
        host.root / "home/link": 5001,
        host.root / "home": 0,
        host.root / "passwd": 0,
        home / "../ann": 5002,
        home / ".qmail-foo": 5001,
        host.root / "home/loop": None,
        host.root / "nowhere": None,
        host.root / "passwd/x": None,
        host.root / ("x" * 300): None,
    }.items():
        assert owner(host, os.fsencode(path)) == uid, path


@pytest.mark.parametrize(("home", "uid"), [(b"", None), (b"home/joe", 5001), (b"nowhere", None), (b"/", 0), (b"//", 0)])
def test_odd_homes_have_the_owner_that_stat_finds(host: Host, home: bytes, uid: int | None) -> None:
    assert owner(host, home) == uid


@pytest.mark.parametrize("suffix", [b"/", b"/.", b"//", b"/../joe"])
def test_a_home_may_be_spelt_in_many_ways(host: Host, suffix: bytes) -> None:
    path = os.fsencode(host.root / "home/joe") + suffix
    tables = Tables(Settings.from_environment(host.environment))
    tables.request()
    assert owner(host, path) == 5001
    assert tables.home(path, JOE).files.get(b".qmail-foo") == DotQmail(0o100644, b"")
    with pytest.raises(Unavailable):
        tables.home(os.fsencode(host.root / "passwd") + suffix, JOE)
