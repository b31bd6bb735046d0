"""The module cvm-vmailmgr beside the C program, on the same tables: the same bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from end_to_end.programs import beside
from end_to_end.test_c_program import credential as given
from end_to_end.test_c_program import v2, wrapped
from hosts import Host, cdb_bytes, plain_host, temporary_directory
from programs.test_vmailmgr import record
from serving import CVM_QMAIL, Server, serving

from cvm_qmail.protocols.cvm import packets

pytestmark = [pytest.mark.root, pytest.mark.peer("cvm-testclient")]

OURS = CVM_QMAIL.with_name("cvm-vmailmgr")
C_PROGRAM = beside("cvm-testclient", "cvm-vmailmgr")
MD5 = b"$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1"
"""Of the password ``secret``."""

DES = b"ab0vEt7pgLHNs"


def stored(password: bytes, **more: bytes) -> bytes:
    return record(**more).replace(b"\0*\0", b"\0" + password + b"\0", 1)


USERS = {
    b"ann": stored(MD5),
    b"clear": stored(b"$0$secret"),
    b"des": stored(DES),
    b"short": stored(b"*"),
    b"off": stored(MD5, flags=b"\x08\0\x0a\1"),
    b"old": b":" + MD5 + b":./users/old/./x/../y//",
    b"slashes": stored(MD5, directory=b"//mail//"),
    b"root": stored(MD5, directory=b"../../../../../../../.."),
    b"dots": stored(MD5, directory=b"././/"),
    b"nodir": stored(MD5, directory=b""),
    b"absolute": stored(MD5, directory=b"/mail/ann/"),
    b"expired": stored(MD5, expiry=b"1"),
    b"damaged": b"\7",
    b"a-b": stored(MD5),
}
NAMES = [*USERS, b"nobody", b"ANN", b"+", b""]
DOMAINS = [b"v.example", b"V.EXAMPLE", b"example.org", b"elsewhere.example", b"other.example"]
PASSWORDS = [b"secret", b"Secret", b"", b"$0$secret", b"x" * 100]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """v.example belongs to joe, who has virtual users; other.example to ann, who has none."""
    with temporary_directory() as directory:
        made = plain_host(directory)
        made.control("virtualdomains", "v.example:joe\nother.example:ann\n")
        made.file("home/joe/passwd.cdb", cdb_bytes(list(USERS.items())), mode=0o600, uid=5001, gid=5001)
        yield made


def questions(**more: bytes) -> list[bytes]:
    addresses = [(name, domain) for domain in DOMAINS for name in NAMES] + [
        (b"joe-ann", b"example.org"),
        (b"joe", b"x"),
    ]
    return [
        v2(given(1, name), given(2, domain), *([given(3, more["password"])] if more else []))
        for name, domain in addresses
    ]


def different(ours: Server, c: Server, packet_list: list[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    answers = [(packet, ours.send(packet), c.send(packet)) for packet in packet_list]
    return [answer for answer in answers if answer[1] != answer[2]]


@pytest.mark.parametrize("default", [None, "ann", "nobody-here"])
def test_lookups_are_the_same_bytes(host: Host, default: str | None) -> None:
    more = {"CVM_LOOKUP_SECRET": "", "VMAILMGR_DEFAULT": default}
    with (
        serving(host, program=OURS, **more) as ours,
        serving(host, program=C_PROGRAM, **wrapped(host), **more) as c,
    ):
        assert different(ours, c, questions()) == []


@pytest.mark.parametrize("locked", [None, "1"])
def test_logins_are_the_same_bytes(host: Host, locked: str | None) -> None:
    more = {"CVM_LOOKUP_SECRET": None, "VMAILMGR_LOCK_DISABLED": locked}
    with (
        serving(host, program=OURS, **more) as ours,
        serving(host, program=C_PROGRAM, **wrapped(host), **more) as c,
    ):
        for password in PASSWORDS:
            assert different(ours, c, questions(password=password)) == []


def test_a_table_of_another_name(host: Host) -> None:
    host.directory("home/joe/mail", uid=5001, gid=5001)
    path = host.file("home/joe/mail/users.cdb", cdb_bytes([(b"bob", stored(MD5))]), uid=5001, gid=5001)
    for name in ("mail/users.cdb", str(path)):
        with serving(host, program=OURS, CVM_LOOKUP_SECRET="", VMAILMGR_PWFILE=name) as server:
            assert server.ask("bob", "v.example").code == 0
            assert server.ask("ann", "v.example").code == 100


def test_a_table_that_changes_is_seen_by_the_next_request(host: Host) -> None:
    with serving(host, program=OURS, CVM_LOOKUP_SECRET="", VMAILMGR_PWFILE="new.cdb", CVM_WORKERS="1") as server:
        assert server.ask("bob", "v.example").code == 100
        host.file("home/joe/new.cdb", cdb_bytes([(b"bob", stored(MD5))]), uid=5001, gid=5001)
        assert [server.ask("bob", "v.example").code for _ in range(3)] == [0, 0, 0]
        (host.root / "home/joe/new.cdb").write_bytes(b"damaged")
        assert server.ask("bob", "v.example").code == 4
        (host.root / "home/joe/new.cdb").unlink()
        answer = server.ask("bob", "v.example")
        assert (answer.code, dict(answer.facts)[packets.Fact.OUTOFSCOPE]) == (100, b"1")


def test_no_password_gets_into_the_log(host: Host) -> None:
    with serving(host, program=OURS, CVM_LOOKUP_SECRET=None) as server:
        server.ask("ann", "v.example", password=b"my-secret")
        server.ask("clear", "v.example", password=b"my-secret")
        server.logged("wrong-password")
        text = server.log.read_text() + server.errors.read_text()
    assert "my-secret" not in text
    assert "$1$" not in text
