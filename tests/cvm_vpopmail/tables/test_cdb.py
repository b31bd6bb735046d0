"""Accounts of the cdb back end: which file decides, and what is never taken for "no such user"."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts import cdb_bytes, temporary_directory
from vdomains import KINDS, UID, VpopmailHost, as_process, vpopmail_host

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import FileAccess, Rights, Tables
from cvm_vpopmail.accounts import Domain
from cvm_vpopmail.tables.cdb import CdbAccounts

pytestmark = pytest.mark.root

DOMAIN = "example.com"
EXACT = ["root", "the owner"]


@pytest.fixture
def vhost() -> Iterator[VpopmailHost]:
    """example.com has bob and ann; all may be read by everybody, so that each kind of process sees it."""
    with temporary_directory() as root:
        host = vpopmail_host(root)
        host.accounts(DOMAIN, "ann:16", "bob")
        opened(host)
        yield host


def opened(host: VpopmailHost) -> None:
    """The domain's directory, and its tables, for everybody's eyes."""
    host.at(DOMAIN).chmod(0o755)
    for name in ("vpasswd", "vpasswd.cdb"):
        if host.at(f"{DOMAIN}/{name}").is_file():
            host.at(f"{DOMAIN}/{name}").chmod(0o644)


def saying(host: VpopmailHost, *names: str, tables: Tables | None = None, uid: int = UID) -> str:
    """For each name the home and flags of its account; ``-`` if there is none; ``?`` and the reason."""
    tables = tables or Tables(Settings.from_environment(host.environment))
    tables.request()
    domain = Domain(DOMAIN.encode(), uid, uid, os.fsencode(host.at(DOMAIN)))

    def said(looks: FileAccess, name: str) -> str:
        try:
            account = CdbAccounts(looks, clear=False).get((domain, name.encode()))
        except Unavailable as error:
            return f"?{error.reason}"
        return "-" if account is None else f"{account.directory.rpartition(b'/')[2].decode()}:{account.flags}"

    return tables.as_user(
        Rights(uid, uid), domain.directory, lambda looks: " ".join(said(looks, name) for name in names)
    )


def asked(kind: str, host: VpopmailHost, *names: str) -> str:
    return as_process(kind, lambda: saying(host, *names))


NAMES = "ann", "bob", "kim", ""


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_is_found_by_its_name(kind: str, vhost: VpopmailHost) -> None:
    assert asked(kind, vhost, *NAMES) == "ann:16 bob:0 - -"


@pytest.mark.parametrize("kind", KINDS)
def test_the_cdb_decides_however_old_it_is(kind: str, vhost: VpopmailHost) -> None:
    vhost.put(f"{DOMAIN}/vpasswd", vhost.lines(DOMAIN, "kim"), mode=0o644)
    os.utime(vhost.at(f"{DOMAIN}/vpasswd.cdb"), (1, 1))
    assert asked(kind, vhost, *NAMES) == "ann:16 bob:0 - -"


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_cdb_vpasswd_is_read(kind: str, vhost: VpopmailHost) -> None:
    vhost.at(f"{DOMAIN}/vpasswd.cdb").unlink()
    assert asked(kind, vhost, *NAMES) == "ann:16 bob:0 - -"
    assert not vhost.at(f"{DOMAIN}/vpasswd.cdb").exists(), "nothing is ever written"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"bob:x:1:0:g:/h/bob:NOQUOTA", "- bob:0"),
        (b"bob:x:1:1:g:/h/one:NOQUOTA\nbob:x:1:2:g:/h/two:NOQUOTA\n", "- one:1"),
        (b"bobby:x:1:1:g:/h/bobby:\nxbob:x:1:1:g:/h/xbob:\n", "- -"),
        (b"Bob:x:1:1:g:/h/Bob:\n", "- -"),
        (b"\n\nann:x:1:4:g:/h/ann:\n\nbob", "ann:4 -"),
        (b"# bob:x:1:1:g:/h/bob:\n", "- -"),
        (b"ann:x:1:4:bob:/h/ann:\r\nbob:x:1:7:g:/h/bob:\r\n", "ann:4 bob:7"),
        (b"", "- -"),
        (b"\0bob:x:1:1:g:/h/bob:\n", "- -"),
        (b"bob:\nbob:x:1:1:g:/h/two:\n", "- :0"),
    ],
)
def test_vpasswd_is_read_line_by_line_and_the_first_of_a_name_counts(
    vhost: VpopmailHost, text: bytes, expected: str
) -> None:
    vhost.at(f"{DOMAIN}/vpasswd.cdb").unlink()
    vhost.put(f"{DOMAIN}/vpasswd", text)
    assert saying(vhost, "ann", "bob") == expected


def test_a_cdb_has_the_first_of_two_records_of_a_name(vhost: VpopmailHost) -> None:
    records = [(b"bob", b"x:1:1:g:/h/one:"), (b"bob", b"x:1:2:g:/h/two:"), (b"Ann", b"x:1:0:g:/h/ann:")]
    vhost.put(f"{DOMAIN}/vpasswd.cdb", cdb_bytes(records))
    assert saying(vhost, "bob", "ann") == "one:1 -"


@pytest.mark.parametrize("kind", KINDS)
def test_without_both_the_accounts_are_gone_and_none_is_missing(kind: str, vhost: VpopmailHost) -> None:
    """vadddomain always makes vpasswd: a disk that is not mounted must not reject every address.  The empty name
    is never looked for."""
    vhost.at(f"{DOMAIN}/vpasswd.cdb").unlink()
    vhost.at(f"{DOMAIN}/vpasswd").unlink()
    assert asked(kind, vhost, *NAMES) == "?accounts-gone ?accounts-gone ?accounts-gone -"


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_domain_whose_directory_is_missing_the_accounts_are_gone(kind: str, vhost: VpopmailHost) -> None:
    shutil.rmtree(vhost.at(DOMAIN))
    assert asked(kind, vhost, *NAMES) == "?accounts-gone ?accounts-gone ?accounts-gone -"


# -- damage -------------------------------------------------------------------------------------------


def cut(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def a_directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGE = {
    "empty": cut(0),
    "one byte": cut(1),
    "a header cut off": cut(2047),
    "only a header": cut(2048),
    "cut in the records": cut(2100),
    "garbage": garbage,
    "a byte too long": longer,
    "zeros": zeros,
    "a directory": a_directory_instead,
    "a FIFO": a_fifo,
    "a loop of links": a_loop,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cdb_that_is_not_sound_is_temporary_for_every_name(kind: str, vhost: VpopmailHost, damage: str) -> None:
    DAMAGE[damage](vhost.at(f"{DOMAIN}/vpasswd.cdb"))
    assert [said[:1] for said in asked(kind, vhost, "ann", "bob", "kim").split()] == ["?"] * 3


@pytest.mark.parametrize("size", [2049, 2060, 2150])
def test_a_cdb_that_ends_early_by_any_number_of_bytes_is_temporary(vhost: VpopmailHost, size: int) -> None:
    path = vhost.at(f"{DOMAIN}/vpasswd.cdb")
    assert size < path.stat().st_size
    cut(path.stat().st_size - 1)(path)
    assert saying(vhost, "bob", "kim") == "?cdb-damaged ?cdb-damaged"
    cut(size)(path)
    assert saying(vhost, "bob", "kim") == "?cdb-damaged ?cdb-damaged"


@pytest.mark.parametrize("spoil", [a_directory_instead, a_fifo, a_loop])
def test_a_vpasswd_that_is_no_file_is_temporary(vhost: VpopmailHost, spoil: Callable[[Path], None]) -> None:
    vhost.at(f"{DOMAIN}/vpasswd.cdb").unlink()
    spoil(vhost.at(f"{DOMAIN}/vpasswd"))
    assert saying(vhost, "bob")[:1] == "?"


def test_a_vpasswd_that_is_too_long_is_temporary(vhost: VpopmailHost) -> None:
    vhost.at(f"{DOMAIN}/vpasswd.cdb").unlink()
    os.truncate(vhost.at(f"{DOMAIN}/vpasswd"), 1 << 30)
    assert saying(vhost, "bob") == "?unreadable"


# -- rights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXACT)
def test_a_cdb_that_is_refused_to_the_owner_sends_it_to_vpasswd(kind: str, vhost: VpopmailHost) -> None:
    os.chown(vhost.at(f"{DOMAIN}/vpasswd.cdb"), 0, 0)
    vhost.at(f"{DOMAIN}/vpasswd.cdb").chmod(0o600)
    vhost.put(f"{DOMAIN}/vpasswd", vhost.lines(DOMAIN, "kim"), mode=0o644)
    assert asked(kind, vhost, "bob", "kim") == "- kim:0"


@pytest.mark.parametrize("kind", EXACT)
def test_with_both_refused_nothing_can_be_determined(kind: str, vhost: VpopmailHost) -> None:
    for name in ("vpasswd", "vpasswd.cdb"):
        os.chown(vhost.at(f"{DOMAIN}/{name}"), 0, 0)
        vhost.at(f"{DOMAIN}/{name}").chmod(0o600)
    assert asked(kind, vhost, "bob") == "?refused"


@pytest.mark.parametrize("name", ["vpasswd.cdb", "."])
def test_what_only_this_process_is_refused_is_no_answer(vhost: VpopmailHost, name: str) -> None:
    vhost.at(f"{DOMAIN}/{name}").chmod(0o700 if name == "." else 0o600)
    assert asked("somebody by bits", vhost, "bob", "kim")[:1] == "?"
    assert asked("the owner", vhost, "bob", "kim") == "bob:0 -"


@pytest.mark.parametrize("kind", EXACT)
def test_a_directory_that_is_refused_to_the_owner_is_temporary(kind: str, vhost: VpopmailHost) -> None:
    os.chown(vhost.at(DOMAIN), 0, 0)
    vhost.at(DOMAIN).chmod(0o700)
    assert asked(kind, vhost, "bob")[:1] == "?"


@pytest.mark.peer("setfacl")
def test_access_lists_count(vhost: VpopmailHost) -> None:
    vhost.put(f"{DOMAIN}/vpasswd", vhost.lines(DOMAIN, "kim"))
    path = vhost.at(f"{DOMAIN}/vpasswd.cdb")
    os.chown(path, 0, 0)
    path.chmod(0o600)
    assert saying(vhost, "bob", "kim") == "- kim:0"
    subprocess.run(["setfacl", "-m", f"u:{UID}:r", path], check=True)
    assert saying(vhost, "bob", "kim") == "bob:0 -"


# -- a server that goes on ----------------------------------------------------------------------------


def test_a_cdb_that_is_replaced_is_the_new_one_at_once(vhost: VpopmailHost) -> None:
    tables = Tables(Settings.from_environment(vhost.environment))
    for turn in range(50):
        vhost.accounts(DOMAIN, "bob" if turn % 2 else "kim")
        assert saying(vhost, "bob", "kim", tables=tables) == ("bob:0 -" if turn % 2 else "- kim:0")


def test_a_cdb_that_is_rewritten_in_place_is_the_new_one_at_once(vhost: VpopmailHost) -> None:
    tables = Tables(Settings.from_environment(vhost.environment))
    path = vhost.at(f"{DOMAIN}/vpasswd.cdb")
    for turn in range(50):
        with path.open("r+b", buffering=0) as file:
            file.write(vhost.cdb(DOMAIN, "bob" if turn % 2 else "kim"))
            file.truncate()
        os.utime(path, (1, 1))
        assert saying(vhost, "bob", "kim", tables=tables) == ("bob:0 -" if turn % 2 else "- kim:0")


def test_a_cdb_that_goes_and_comes_is_known_to_be_gone_and_back(vhost: VpopmailHost) -> None:
    tables = Tables(Settings.from_environment(vhost.environment))
    path = vhost.at(f"{DOMAIN}/vpasswd.cdb")
    vhost.put(f"{DOMAIN}/vpasswd", vhost.lines(DOMAIN, "kim"))
    for _ in range(20):
        assert saying(vhost, "bob", "kim", tables=tables) == "bob:0 -"
        path.rename(path.with_name("aside"))
        assert saying(vhost, "bob", "kim", tables=tables) == "- kim:0"
        path.with_name("aside").rename(path)


def test_a_damage_is_over_when_the_cdb_is_sound_again(vhost: VpopmailHost) -> None:
    tables = Tables(Settings.from_environment(vhost.environment))
    path = vhost.at(f"{DOMAIN}/vpasswd.cdb")
    whole = path.read_bytes()
    for _ in range(20):
        os.truncate(path, len(whole) // 2)
        assert saying(vhost, "bob", tables=tables) == "?cdb-damaged"
        path.write_bytes(whole)
        assert saying(vhost, "bob", tables=tables) == "bob:0"


def test_a_large_database_is_searched_where_it_lies(vhost: VpopmailHost) -> None:
    accounts = [f"user{number:05}:{number}" for number in range(20_000)]
    vhost.put(f"{DOMAIN}/vpasswd.cdb", vhost.cdb(DOMAIN, *accounts))
    assert vhost.at(f"{DOMAIN}/vpasswd.cdb").stat().st_size > 1 << 20
    assert saying(vhost, "user00000", "user19999", "user20000") == "user00000:0 user19999:19999 -"


def test_an_unexpected_errno_is_not_a_missing_file(vhost: VpopmailHost) -> None:
    """A name too long for the file system: the directory cannot exist, and vpopmail finds nobody there."""
    domain = Domain(DOMAIN.encode(), UID, UID, os.fsencode(vhost.at("x" * 300)))
    tables = Tables(Settings.from_environment(vhost.environment))
    tables.request()
    with pytest.raises(Unavailable) as error:
        tables.as_user(
            Rights(UID, UID), domain.directory, lambda looks: CdbAccounts(looks, clear=False).get((domain, b"bob"))
        )
    assert error.value.errno == errno.ENAMETOOLONG
