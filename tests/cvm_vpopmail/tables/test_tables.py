"""Domains of users/cdb, limits, the default domain, and what one user sees of the disk."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from hosts import a_folder, cdb_bytes
from vdomains import KINDS, UID, VpopmailHost, as_process, vpopmail_host

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Rights, Tables
from cvm_vpopmail.accounts import Domain, Flag
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.tables import DefaultDomain, Domains, LimitFiles, Seen

pytestmark = pytest.mark.root

OWNER = Rights(UID, UID)
KIND = sorted(KINDS)


@pytest.fixture
def vhost() -> Iterator[VpopmailHost]:
    with a_folder() as root:
        yield vpopmail_host(root)


@pytest.fixture
def tables(vhost: VpopmailHost) -> Tables:
    return begun(vhost)


def begun(host: VpopmailHost) -> Tables:
    """Tables of a host, and a request that begins."""
    tables = Tables(Settings.from_environment(host.environment))
    tables.begin()
    return tables


def example(host: VpopmailHost) -> Domain:
    return Domain(b"example.com", UID, UID, os.fsencode(host.at("example.com")))


# -- users/cdb ----------------------------------------------------------------------------------------


def test_a_domain_is_what_its_record_says(vhost: VpopmailHost, tables: Tables) -> None:
    assert Domains(tables).get(b"example.com") == example(vhost)


def test_an_alias_domain_is_the_real_one(vhost: VpopmailHost, tables: Tables) -> None:
    assert Domains(tables).get(b"alias.example") == example(vhost)


def test_the_record_of_an_alias_stays_in_force_with_its_own_directory_and_owner(vhost: VpopmailHost) -> None:
    vhost.users(
        f"+example.com-:example.com:{UID}:{UID}:/one:-::", f"+alias.example-:example.com:{UID + 1}:{UID + 2}:/two:-::"
    )
    assert Domains(begun(vhost)).get(b"alias.example") == Domain(b"example.com", UID + 1, UID + 2, b"/two")


@pytest.mark.parametrize("name", [b"", b"example", b"xample.com", b"example.com.", b"example.com-", b"EXAMPLE.COM"])
def test_a_name_without_a_record_of_its_own_is_no_domain(tables: Tables, name: bytes) -> None:
    assert Domains(tables).get(name) is None


def test_a_user_of_qmail_s_is_no_domain(vhost: VpopmailHost) -> None:
    vhost.users(f"=example.com:joe:{UID}:{UID}:/home/joe:::", f"+:joe:{UID}:{UID}:/home/joe:-::")
    assert Domains(begun(vhost)).get(b"example.com") is None


def test_without_a_users_cdb_there_is_no_domain(vhost: VpopmailHost) -> None:
    vhost.users()
    assert Domains(begun(vhost)).get(b"example.com") is None


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"example.com",
        b"example.com\0089",
        b"example.com\00089\00089",
        b"example.com\0x\00089\0/v\0-\0\0",
        b"example.com\00089\0\0/v\0-\0\0",
        b"example.com\0-1\00089\0/v\0-\0\0",
        b"example.com\x0089\x0089\0v/domains\0-\0\0",
        b"example.com\x0089\x0089\0\0-\0\0",
    ],
)
def test_a_record_that_is_damaged_is_a_trouble(vhost: VpopmailHost, record: bytes) -> None:
    vhost.file("users/cdb", cdb_bytes([(b"!example.com-", record), (b"", b"-")]))
    with pytest.raises(Unavailable) as trouble:
        Domains(begun(vhost)).get(b"example.com")
    assert trouble.value.reason == "domain-record"


@pytest.mark.parametrize("data", [b"", b"x", bytes(2047), bytes(4096), b"\xff" * 4096])
def test_a_users_cdb_that_is_damaged_is_a_trouble(vhost: VpopmailHost, data: bytes) -> None:
    vhost.file("users/cdb", data)
    with pytest.raises(Unavailable):
        Domains(begun(vhost)).get(b"example.com")


# -- limits -------------------------------------------------------------------------------------------


def limits(host: VpopmailHost, kind: str = "root", *, within: bool = False) -> str:
    """What the limits are, or why they cannot be told; `within`: asked while the owner looks."""

    def said() -> str:
        tables = begun(host)
        files, domain = LimitFiles(tables, os.fsencode(host.root / "v")), example(host)
        try:
            if within:
                return str(tables.looking(OWNER, domain.directory, lambda _: files.get(domain)).flags)
            return str(files.get(domain).flags)
        except Unavailable as trouble:
            return trouble.reason

    return as_process(kind, said)


NO_IMAP, NO_POP = str(int(Flag.NO_IMAP)), str(int(Flag.NO_POP))


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("kind", ["root", "the owner"])
def test_limits_are_those_of_the_domain_else_of_the_host_else_none(
    vhost: VpopmailHost, kind: str, within: bool
) -> None:
    assert limits(vhost, kind, within=within) == "0"
    (vhost.root / "v/etc").mkdir()
    vhost.file("v/etc/vlimits.default", "disable_pop 1\n")
    assert limits(vhost, kind, within=within) == NO_POP
    vhost.put("example.com/.qmailadmin-limits", "disable_imap 0\n")
    assert limits(vhost, kind, within=within) == NO_IMAP
    vhost.put("example.com/.qmailadmin-limits", "")
    assert limits(vhost, kind, within=within) == "0", "only one of the two is read"


@pytest.mark.parametrize("within", [False, True])
def test_limits_that_only_root_may_read_count(vhost: VpopmailHost, within: bool) -> None:
    """As vchkpw, which is root, reads them."""
    (vhost.root / "v/etc").mkdir(mode=0o700)
    vhost.file("v/etc/vlimits.default", "disable_pop 1\n", mode=0o600)
    assert limits(vhost, within=within) == NO_POP
    vhost.put("example.com/.qmailadmin-limits", "disable_imap 1\n", uid=0, mode=0o600)
    assert limits(vhost, within=within) == NO_IMAP


def test_limits_that_this_process_may_not_read_are_a_trouble(vhost: VpopmailHost) -> None:
    vhost.put("example.com/.qmailadmin-limits", "disable_imap 1\n", uid=0, mode=0o600)
    assert limits(vhost, "the owner") == "refused"
    assert limits(vhost, "somebody by bits") == "refused"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink(path, path)])
def test_limits_that_are_no_file_are_a_trouble(vhost: VpopmailHost, make: Callable[[bytes], object]) -> None:
    make(os.fsencode(vhost.at("example.com/.qmailadmin-limits")))
    assert limits(vhost) == "unreadable"


def test_limits_are_the_new_ones_at_once(vhost: VpopmailHost, tables: Tables) -> None:
    files = LimitFiles(tables, os.fsencode(vhost.root / "v"))
    for turn in range(30):
        vhost.put("example.com/.qmailadmin-limits", f"maxmsgcount {turn}\nquota {turn}\n")
        tables.begin()
        assert files.get(example(vhost)) == Limits(0, turn, turn)


# -- the default domain -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("example.com\n", b"example.com"),
        ("Example.COM", b"example.com"),
        ("example.com \t\r\nother\n", b"example.com"),
        ("\nexample.com\n", b""),
        ("", b""),
        (None, b""),
    ],
)
def test_the_default_domain_is_the_first_line(
    vhost: VpopmailHost, tables: Tables, text: str | None, domain: bytes
) -> None:
    if text is not None:
        (vhost.root / "v/etc").mkdir()
        vhost.file("v/etc/defaultdomain", text)
    assert DefaultDomain(tables, os.fsencode(vhost.root / "v"))() == domain


def test_a_default_domain_that_cannot_be_read_is_a_trouble(vhost: VpopmailHost, tables: Tables) -> None:
    (vhost.root / "v/etc/defaultdomain").mkdir(parents=True)
    with pytest.raises(Unavailable):
        DefaultDomain(tables, os.fsencode(vhost.root / "v"))()


# -- what one user sees -------------------------------------------------------------------------------


def seen(host: VpopmailHost, path: str, kind: str = "root", rights: Rights = OWNER) -> str:
    """What the sight of `rights` says of a path: file, status, listing, enters, writable, each ``?`` if untold."""

    def said() -> str:
        tables = begun(host)
        where = os.fsencode(host.at(path))

        def ask(question: Callable[[bytes], object]) -> str:
            try:
                answer = question(where)
            except Unavailable:
                return "?"
            return "-" if answer is None or answer is False else "+"

        return tables.looking(
            rights,
            os.fsencode(host.at("example.com")),
            lambda looks: "".join(
                map(
                    ask,
                    (
                        Seen(looks).file,
                        Seen(looks).status,
                        Seen(looks).listing,
                        Seen(looks).enters,
                        Seen(looks).writable,
                    ),
                )
            ),
        )

    return as_process(kind, said)


EXACT = pytest.mark.parametrize("kind", ["root", "the owner"])


@EXACT
def test_a_file_and_a_folder_of_the_user_are_seen(vhost: VpopmailHost, kind: str) -> None:
    assert seen(vhost, "example.com/vpasswd", kind) == "++---"
    assert seen(vhost, "example.com", kind) == "-++++"
    assert seen(vhost, "example.com/nothing", kind) == "-----"
    assert seen(vhost, "example.com/vpasswd/x", kind) == "-----"


@EXACT
def test_what_the_user_is_refused_is_missing_to_the_user(vhost: VpopmailHost, kind: str) -> None:
    vhost.folder("v/domains/closed", mode=0o700)
    vhost.file("v/domains/closed/file")
    vhost.file("v/domains/secret", mode=0o600)
    vhost.folder("v/domains/list", mode=0o744)
    vhost.folder("v/domains/way", mode=0o711)
    assert seen(vhost, "closed", kind) == "-+---"
    assert seen(vhost, "closed/file", kind) == "-----"
    assert seen(vhost, "secret", kind) == "-+---"
    assert seen(vhost, "list", kind) == "-++--"
    assert seen(vhost, "way", kind) == "-+-+-"


def test_by_bits_a_refusal_tells_nothing(vhost: VpopmailHost) -> None:
    """It may be this process's own alone."""
    assert seen(vhost, "example.com/vpasswd", "somebody by bits") == "?????"
    assert seen(vhost, "example.com", "somebody by bits").startswith("-+?")


@EXACT
def test_a_fifo_s_content_cannot_be_told(vhost: VpopmailHost, kind: str) -> None:
    """Who reads it may wait for ever."""
    os.mkfifo(vhost.at("example.com/fifo"))
    assert seen(vhost, "example.com/fifo", kind)[0] == "?"


@EXACT
def test_a_socket_cannot_be_opened_and_dev_null_is_an_empty_file(vhost: VpopmailHost, kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.fsencode(vhost.at("example.com/socket")))
    vhost.at("example.com/null").symlink_to("/dev/null")
    vhost.at("example.com/tty").symlink_to("/dev/tty")
    assert seen(vhost, "example.com/socket", kind)[0] == "-"
    assert seen(vhost, "example.com/null", kind)[0] == "+"
    assert seen(vhost, "example.com/tty", kind)[0] == "?"


@EXACT
def test_a_loop_of_links_is_what_its_user_finds_it_to_be_nothing(vhost: VpopmailHost, kind: str) -> None:
    vhost.at("example.com/loop").symlink_to("loop")
    assert seen(vhost, "example.com/loop", kind) == "-----"


@EXACT
def test_a_file_that_is_too_long_cannot_be_told(vhost: VpopmailHost, kind: str) -> None:
    os.truncate(vhost.put("example.com/huge", ""), 1 << 34)
    assert seen(vhost, "example.com/huge", kind)[0] == "?"


@pytest.mark.parametrize("question", ["file", "status", "listing", "enters", "writable"])
def test_nothing_is_looked_at_when_the_time_is_over(vhost: VpopmailHost, tables: Tables, question: str) -> None:
    home = os.fsencode(vhost.at("example.com"))

    def look(until: float) -> str:
        try:
            tables.looking(OWNER, home, lambda looks: getattr(Seen(looks, until), question)(home))
        except Unavailable as trouble:
            return trouble.reason
        return "seen"

    assert look(time.monotonic() + 60) == "seen"
    assert look(time.monotonic()) == "too-much"


@pytest.mark.peer("setfacl")
@EXACT
def test_access_lists_count(vhost: VpopmailHost, kind: str) -> None:
    vhost.folder("v/domains/listed", mode=0o700)
    assert seen(vhost, "listed", kind) == "-+---"
    subprocess.run(["setfacl", "-m", f"u:{UID}:rwx", vhost.at("listed")], check=True)
    assert seen(vhost, "listed", kind) == "-++++"
    subprocess.run(["setfacl", "-m", f"u:{UID}:-", vhost.at("example.com/vpasswd")], check=True)
    os.chown(vhost.at("example.com/vpasswd"), 0, 0)
    assert seen(vhost, "example.com/vpasswd", kind) == "-+---"
