"""What one user sees of the disk."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable

import pytest
from vdomains import OWNER, UID, VpopmailHost, as_process, begun, example

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.door import Rights, Tables
from cvm_vpopmail.rules.mailbox import can_make
from cvm_vpopmail.tables.user_view import UserView

pytestmark = pytest.mark.root


def seen(host: VpopmailHost, path: str, kind: str = "root", rights: Rights = OWNER) -> str:
    """What the view of `rights` says of a path: file, status, listing, enters, writable, each ``?`` if undetermined."""

    def said() -> str:
        tables = begun(host)
        where = os.fsencode(host.at(path))

        def ask(question: Callable[[bytes], object]) -> str:
            try:
                answer = question(where)
            except Unavailable:
                return "?"
            return "-" if answer is None or answer is False else "+"

        return tables.as_user(
            rights,
            os.fsencode(host.at("example.com")),
            lambda looks: "".join(
                map(
                    ask,
                    (
                        UserView(looks).file,
                        UserView(looks).status,
                        UserView(looks).listing,
                        UserView(looks).enters,
                        UserView(looks).writable,
                    ),
                )
            ),
        )

    return as_process(kind, said)


EXACT = pytest.mark.parametrize("kind", ["root", "the owner"])


@EXACT
def test_a_file_and_temporary_directory_of_the_user_are_seen(vhost: VpopmailHost, kind: str) -> None:
    assert seen(vhost, "example.com/vpasswd", kind) == "++---"
    assert seen(vhost, "example.com", kind) == "-++++"
    assert seen(vhost, "example.com/nothing", kind) == "-----"
    assert seen(vhost, "example.com/vpasswd/x", kind) == "-----"


@EXACT
def test_what_the_user_is_refused_is_missing_to_the_user(vhost: VpopmailHost, kind: str) -> None:
    vhost.directory("v/domains/closed", mode=0o700)
    vhost.file("v/domains/closed/file")
    vhost.file("v/domains/secret", mode=0o600)
    vhost.directory("v/domains/list", mode=0o744)
    vhost.directory("v/domains/way", mode=0o711)
    assert seen(vhost, "closed", kind) == "-+---"
    assert seen(vhost, "closed/file", kind) == "-----"
    assert seen(vhost, "secret", kind) == "-+---"
    assert seen(vhost, "list", kind) == "-++--"
    assert seen(vhost, "way", kind) == "-+-+-"


def test_by_bits_a_refusal_is_no_answer(vhost: VpopmailHost) -> None:
    """It may be this process's own alone."""
    assert seen(vhost, "example.com/vpasswd", "somebody by bits") == "?????"
    assert seen(vhost, "example.com", "somebody by bits").startswith("-+?")


@EXACT
def test_a_fifo_s_content_cannot_be_determined(vhost: VpopmailHost, kind: str) -> None:
    """Who reads it may wait for ever."""
    os.mkfifo(vhost.at("example.com/fifo"))
    assert seen(vhost, "example.com/fifo", kind)[0] == "?"


@EXACT
def test_a_socket_cannot_be_opened_and_dev_null_is_an_empty_file(vhost: VpopmailHost, kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fsencode(vhost.at("example.com/socket")))
    vhost.at("example.com/null").symlink_to("/dev/null")
    vhost.at("example.com/tty").symlink_to("/dev/tty")
    assert seen(vhost, "example.com/socket", kind)[0] == "-"
    assert seen(vhost, "example.com/null", kind)[0] == "+"
    assert seen(vhost, "example.com/tty", kind)[0] == "?"


@EXACT
def test_a_loop_of_links_is_nothing_as_its_user_finds(vhost: VpopmailHost, kind: str) -> None:
    vhost.at("example.com/loop").symlink_to("loop")
    assert seen(vhost, "example.com/loop", kind) == "-----"


@EXACT
def test_a_file_that_is_too_long_cannot_be_determined(vhost: VpopmailHost, kind: str) -> None:
    os.truncate(vhost.put("example.com/huge", ""), 1 << 34)
    assert seen(vhost, "example.com/huge", kind)[0] == "?"


@pytest.mark.parametrize("question", ["file", "status", "listing", "enters", "writable"])
def test_nothing_is_looked_at_when_the_time_is_over(vhost: VpopmailHost, tables: Tables, question: str) -> None:
    home = os.fsencode(vhost.at("example.com"))

    def look(until: float) -> str:
        try:
            tables.as_user(OWNER, home, lambda looks: getattr(UserView(looks, until), question)(home))
        except Unavailable as error:
            return error.reason
        return "seen"

    assert look(time.monotonic() + 60) == "seen"
    assert look(time.monotonic()) == "too-much"


@pytest.mark.peer("setfacl")
@EXACT
def test_access_lists_count(vhost: VpopmailHost, kind: str) -> None:
    vhost.directory("v/domains/listed", mode=0o700)
    assert seen(vhost, "listed", kind) == "-+---"
    subprocess.run(["setfacl", "-m", f"u:{UID}:rwx", vhost.at("listed")], check=True)
    assert seen(vhost, "listed", kind) == "-++++"
    subprocess.run(["setfacl", "-m", f"u:{UID}:-", vhost.at("example.com/vpasswd")], check=True)
    os.chown(vhost.at("example.com/vpasswd"), 0, 0)
    assert seen(vhost, "example.com/vpasswd", kind) == "-+---"


def made(home: bytes, domain: bytes) -> bool:
    """Whether the owner can make a home as vpopmail does: mkdir(2) of each directory that is missing, then chdir(2)."""

    def said() -> str:
        parts = home.removeprefix(domain).split(b"/")
        for end in range(2, len(parts) + 1):
            try:
                os.mkdir(domain + b"/".join(parts[:end]))
            except FileExistsError:
                continue
            except OSError:
                break
        try:
            os.chdir(home)
        except OSError:
            return "-"
        return "+"

    return as_process("the owner", said) == "+"


@EXACT
@pytest.mark.parametrize(
    "home", ["new", "0/new", "0/1/new", "ln", "ln/new", "ln/", "0/ln/new", "closed/new", "file/new", "elsewhere/new"]
)
def test_a_home_can_be_made_where_mkdir_makes_it(vhost: VpopmailHost, kind: str, home: str) -> None:
    for name in ("example.com/0", "other"):
        vhost.directory(f"v/domains/{name}", uid=UID, gid=UID)
    vhost.directory("v/domains/example.com/closed", mode=0o500, uid=UID, gid=UID)
    for link in ("ln", "0/ln"):
        vhost.at(f"example.com/{link}").symlink_to("nowhere")
    vhost.put("example.com/file", "")
    vhost.at("example.com/elsewhere").symlink_to("../other")
    domain = example(vhost)
    path = os.fsencode(vhost.at("example.com")) + b"/" + home.encode()

    def said() -> str:
        can = begun(vhost).as_user(OWNER, domain.directory, lambda access: can_make(path, domain, UserView(access)))
        return "+" if can else "-"

    assert (as_process(kind, said) == "+") == made(path, domain.directory)
