"""Faults in what vpopmail's users may write: whatever cannot be determined is temporary, and the server goes on.

Invariants: never code 0 or 100 where nothing could be determined, and nobody waits for somebody else's files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hosts import temporary_directory
from serving import AN_HOUR, CVM_QMAIL, PLUGINS, Server, rest, serving, until
from vdomains import BOUNCE, UID, VpopmailHost, vpopmail_host

from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Credential

pytestmark = pytest.mark.root

YES, NO, TEMPORARY = 0, 100, 4

CVM_VPOPMAIL = CVM_QMAIL.with_name("cvm-vpopmail")

DD = "example.com"
CDB, VPASSWD, DEFAULT = f"{DD}/vpasswd.cdb", f"{DD}/vpasswd", f"{DD}/.qmail-default"
HOME, DOTQMAIL, MAILDIR = f"{DD}/bob", f"{DD}/bob/.qmail", f"{DD}/bob/Maildir"
SIZE = f"{MAILDIR}/maildirsize"


@pytest.fixture
def vhost() -> Iterator[VpopmailHost]:
    """example.com with bob and ann."""
    with temporary_directory() as root:
        host = vpopmail_host(root)
        host.home_of(DD, "ann")
        host.accounts(DD, "ann", "bob")
        yield host


@pytest.fixture
def vserver(vhost: VpopmailHost) -> Iterator[Server]:
    """cvm-qmail with the plug-in; a lookup may take as long as it likes, so that one that hangs is seen."""
    with serving(vhost, CVM_LOOKUP_TIMEOUT=AN_HOUR, CVM_WORKERS="1") as server:
        assert (says(server), says(server, "ann")) == (YES, YES)
        yield server
        assert says(server, "ann") == YES
        log = server.log.read_text()
        assert "internal-error" not in log
        assert "ended with" not in log


def says(server: Server, name: str = "bob") -> int:
    return server.ask(name, DD).code


# -- what a file may be -------------------------------------------------------------------------------


def a_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    os.chown(path, UID, UID)


def a_loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def a_long_file(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 34)
    os.chown(path, UID, UID)


def a_directory_instead(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    os.chown(path, UID, UID)


def a_device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


SPOILED = [
    (DOTQMAIL, a_fifo, TEMPORARY),
    (DOTQMAIL, a_loop, YES),  # as vdelivermail does: what cannot be opened is skipped
    (DOTQMAIL, a_directory_instead, YES),
    (DOTQMAIL, a_long_file, TEMPORARY),
    (DOTQMAIL, a_device, TEMPORARY),
    (CDB, a_fifo, TEMPORARY),
    (CDB, a_loop, TEMPORARY),
    (CDB, a_directory_instead, TEMPORARY),
    (CDB, a_long_file, TEMPORARY),
    (CDB, a_device, TEMPORARY),
    (DEFAULT, a_fifo, NO),  # as qmail-local does: the next candidate, and there is none
    (DEFAULT, a_loop, NO),
    (DEFAULT, a_directory_instead, NO),
    (DEFAULT, a_long_file, TEMPORARY),
    (SIZE, a_fifo, TEMPORARY),
    (SIZE, a_loop, YES),  # not to be opened: all is counted
    (SIZE, a_directory_instead, YES),
    (SIZE, a_long_file, YES),  # too long: all is counted
    (f"{MAILDIR}/new/message", a_fifo, YES),
    (f"{MAILDIR}/.directory", a_fifo, YES),
]


@pytest.mark.parametrize(
    ("path", "spoil", "expected"), SPOILED, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_nothing_that_a_user_makes_of_a_file_hangs_anybody(
    vserver: Server, vhost: VpopmailHost, path: str, spoil: Callable[[Path], None], expected: int
) -> None:
    limited = vhost.lines(DD, "ann", "bob::10000S")  # a quota, so that maildirsize is looked at
    vhost.put(VPASSWD, limited)
    vhost.accounts(DD, "ann", "bob::10000S")
    before = vhost.at(DEFAULT).read_bytes(), vhost.at(CDB).read_bytes()
    spoil(vhost.at(path))
    assert {says(vserver) for _ in range(3)} == {expected}
    if vhost.at(path).is_dir() and not vhost.at(path).is_symlink():
        vhost.at(path).rmdir()
    else:
        vhost.at(path).unlink()
    vhost.put(DEFAULT, before[0])
    vhost.put(CDB, before[1])
    assert says(vserver) == YES


@pytest.mark.parametrize("part", ["", "/Maildir", "/Maildir/new", "/Maildir/tmp"])
def test_a_home_or_maildir_that_is_no_directory_is_temporary(vserver: Server, vhost: VpopmailHost, part: str) -> None:
    path = vhost.at(HOME + part)
    for spoil in (a_fifo, Path.touch, *([a_loop] if part else [])):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        spoil(path)
        assert says(vserver) == TEMPORARY


# -- how much there may be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"./Maildir/\n" * 100_000, YES),
        (b"./Maildir/\n" * 100_000 + b"|exit 100\n", NO),
        (b"\n" * 1_000_000, YES),
        (b"#\n" * 1_000_000, YES),
        (b"|exit 0\n" * 100_000, YES),
        (b"".join(b"./%d/\n" % number for number in range(100_000)), TEMPORARY),
        (b"|vdelivermail '' delete\n" * 100_000, TEMPORARY),
        (b"|vdelivermail '" + b"x" * 1_000_000, YES),
        (b'|vdelivermail "' + b'\\"' * 4000 + b"\n", YES),
        ((b"|vdelivermail " + b"'a'\"b\"\\c" * 900 + b"\n") * 100, TEMPORARY),
        (b"|" + b"env A=b " * 900 + b"vdelivermail '' delete", TEMPORARY),
        (b"|" + b"a|" * 4000 + b"vdelivermail '' delete", TEMPORARY),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else str(value),
)
def test_a_home_full_of_lines_is_judged_or_temporary(
    vserver: Server, vhost: VpopmailHost, lines: bytes, expected: int
) -> None:
    vhost.put(DOTQMAIL, lines)
    assert says(vserver) == expected


def test_a_qmail_default_that_runs_vdelivermail_many_times_ends(vserver: Server, vhost: VpopmailHost) -> None:
    vhost.put(DEFAULT, BOUNCE.replace("bounce-no-mailbox", "ann@x.example") * 1000)
    assert says(vserver, "nobody") == TEMPORARY
    vhost.put(DEFAULT, BOUNCE)


def test_a_maildir_with_very_many_messages_is_counted_or_temporary(vserver: Server, vhost: VpopmailHost) -> None:
    """The names say the sizes."""
    new = vhost.at(f"{MAILDIR}/new")
    for number in range(3000):
        os.close(os.open(new / f"{number},S=1", os.O_CREAT))
    for limit, expected in (("bob::1000C", TEMPORARY), ("bob::1000000C", YES)):
        vhost.accounts(DD, "ann", limit)
        assert says(vserver) == expected


def test_a_home_full_of_qmail_files_is_searched_by_name(vhost: VpopmailHost) -> None:
    for number in range(5000):
        os.close(os.open(vhost.at(HOME) / f".qmail-{number}", os.O_CREAT))
    with serving(vhost, CVM_VPOPMAIL_QMAIL_EXT="1", CVM_WORKERS="1") as server:
        assert {server.ask(f"bob-{'a-' * 60}{number}", DD).code for number in range(20)} == {YES}


# -- changes under a server's eyes --------------------------------------------------------------------


def test_a_cdb_that_is_always_being_replaced_is_one_or_the_other(vserver: Server, vhost: VpopmailHost) -> None:
    """Two databases, bob in both: never a no."""
    script = "while :; do cp -p {one} {new} && mv {new} {cdb}; cp -p {two} {new} && mv {new} {cdb}; done"
    one, two, new = (vhost.at(f"{DD}/{name}") for name in ("one", "two", "new"))
    vhost.put(f"{DD}/one", vhost.cdb(DD, "ann", "bob"))
    vhost.put(f"{DD}/two", vhost.cdb(DD, "ann", "bob", *(f"x{number}" for number in range(500))))
    with running(script.format(one=one, two=two, new=new, cdb=vhost.at(CDB))):
        assert {YES} <= {says(vserver) for _ in range(300)} <= {YES, TEMPORARY}


def test_a_cdb_that_is_written_in_place_never_makes_an_account_unknown(vserver: Server, vhost: VpopmailHost) -> None:
    script = "while :; do cat {one} > {cdb}; cat {two} > {cdb}; done"
    one, two = (vhost.at(f"{DD}/{name}") for name in ("one", "two"))
    vhost.put(f"{DD}/one", vhost.cdb(DD, "ann", "bob"))
    vhost.put(f"{DD}/two", vhost.cdb(DD, "ann", "bob", *(f"x{number}" for number in range(500))))
    with running(script.format(one=one, two=two, cdb=vhost.at(CDB))):
        assert {YES} <= {says(vserver) for _ in range(300)} <= {YES, TEMPORARY}
    vhost.accounts(DD, "ann", "bob")


@contextmanager
def running(script: str) -> Iterator[None]:
    """A shell that does this all the time."""
    process = subprocess.Popen(["sh", "-c", script], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


# -- what takes too long ------------------------------------------------------------------------------

COSTLY = "$6$rounds=999999999$saltsalt$" + "x" * 86


@pytest.fixture
def logins(vhost: VpopmailHost) -> Iterator[Server]:
    """cvm-vpopmail for logins; bob's hash takes an hour."""
    lines = vhost.lines(DD, "ann", "bob").replace(vhost.lines(DD, "bob").split(b":")[1], COSTLY.encode())
    ann, bob = vhost.lines(DD, "ann"), lines.splitlines(keepends=True)[1]
    vhost.put(VPASSWD, ann + bob)
    vhost.at(CDB).unlink()
    more: dict[str, Any] = {"CVM_LOOKUP_SECRET": None, "CVM_LOOKUP_TIMEOUT": "800", "CVM_WORKERS": "2"}
    with serving(vhost, program=CVM_VPOPMAIL, **more) as server:
        yield server


def login(server: Server, name: str, password: bytes = b"secret") -> int:
    return server.ask(f"{name}@{DD}", None, password=password).code


def pending(server: Server, name: str) -> bytes:
    """What comes for a login whose lookup is not going to end; empty: the connection was closed."""
    credentials = {Credential.ACCOUNT: f"{name}@{DD}".encode(), Credential.PASSWORD: b"secret"}
    connection = server.connect()
    connection.sendall(packets.pack_request(packets.Request(2, b"", {int(k): v for k, v in credentials.items()})))
    connection.shutdown(1)
    return rest(connection)


def test_a_hostile_hash_is_ended_at_the_deadline_others_go_on_and_its_login_is_in_quarantine(logins: Server) -> None:
    assert login(logins, "ann") == YES
    for _ in range(2):  # busy, not blocked in a call: the first time it might be a pause
        assert pending(logins, "bob") == b""
    assert login(logins, "ann") == YES
    assert login(logins, "ann", b"wrong") == NO
    assert login(logins, "bob") == TEMPORARY
    assert " hang-backoff " in logins.logged(f"? bob@{DD}")
    assert login(logins, "ann") == YES


def test_others_do_not_wait_for_a_hostile_hash(logins: Server) -> None:
    """All workers are busy with it, and there is one to spare."""
    credentials = {int(Credential.ACCOUNT): f"bob@{DD}".encode(), int(Credential.PASSWORD): b"x"}
    waiting = [logins.connect() for _ in range(2)]
    for connection in waiting:
        connection.sendall(packets.pack_request(packets.Request(2, b"", credentials)))
        connection.shutdown(1)
    assert login(logins, "ann") == YES
    for connection in waiting:
        assert rest(connection)[:1] in (b"", b"\4"), "ended, or in quarantine by then"


def test_a_name_that_is_no_account_is_not_judged_by_the_hostile_hash_for_ever(logins: Server) -> None:
    """An unknown account costs what the last one seen cost; that must not hold the workers."""
    assert pending(logins, "bob") == b""
    codes = {login(logins, f"nobody{number}") for number in range(3)}
    assert codes <= {NO, TEMPORARY}
    assert login(logins, "ann") == YES


def test_a_lookup_that_hangs_in_one_domain_holds_up_no_other(vhost: VpopmailHost) -> None:
    vhost.put(f"{DD}/.qmail-hang", "|hang\n")
    vhost.domain("b.example")
    vhost.home_of("b.example", "bob")
    vhost.accounts("b.example", "bob")
    vhost.assign(("example.com", DD, UID), ("b.example", "b.example", UID))
    with serving(vhost, PYTHONPATH=PLUGINS, CVM_LOOKUP_TIMEOUT="1000", CVM_WORKERS="2") as server:
        connection = server.connect()
        connection.sendall(packets.pack_request(packets.Request(2, b"", {1: b"hang", 2: DD.encode()})))
        connection.shutdown(1)
        until(lambda: "stuck" in server.errors.read_text(), "the lookup hangs")
        assert server.ask("bob", "b.example").code == YES
        assert rest(connection) == b""
        assert server.ask("bob", "b.example").code == YES
        assert server.ask("bob", DD).code in (YES, TEMPORARY)
