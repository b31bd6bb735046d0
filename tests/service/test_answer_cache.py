"""Cached responses."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hosts import Host, plain_host, temporary_directory
from serving import request, until

from cvm_qmail.answer import Answer, Recipient, Unavailable, Verdict
from cvm_qmail.pipeline import make_responder
from cvm_qmail.plugin import Module
from cvm_qmail.protocols.cvm.packets import Request, pack_request
from cvm_qmail.qmail import qmail
from cvm_qmail.service import answer_cache
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

pytestmark = pytest.mark.root


class World:
    """A host whose answers are counted when they are made anew."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.made = 0
        settings = Settings.from_environment(host.environment)
        tables = Tables(settings)
        lookup = qmail(tables, settings, []).lookup

        def counted(recipient: Recipient) -> Answer:
            self.made += 1
            return lookup(recipient)

        module = Module(counted, repeatable=True)
        self.respond = make_responder(tables, module, settings._replace(lookup_secret=b""), [])

    def makes(self, packet: bytes) -> int:
        """How many answers are made anew for this packet, asked once."""
        before = self.made
        self.respond(packet)
        return self.made - before


@pytest.fixture(scope="module")
def quiet() -> Iterator[World]:
    """A host that has been as it is for long enough to be cached."""
    gc.collect()  # the kernel grants a user a bounded number of inotify instances: those of earlier tests go
    with temporary_directory() as directory:
        world = World(plain_host(directory))
        packet = request("joe-list-x")
        until(lambda: not world.makes(packet), "everything is old")
        yield world


@pytest.mark.parametrize("account", ["joe", "joe-foo", "ann-x", "nobody", "joe-nothing", "postmaster"])
def test_what_is_asked_again_is_not_made_again(quiet: World, account: str) -> None:
    assert [quiet.makes(request(account)) for _ in range(4)] == [1, 1, 0, 0]


def test_a_request_with_a_password_is_not_kept(quiet: World) -> None:
    packet = pack_request(Request(2, b"", {1: b"joe", 2: b"example.org", 3: b"secret"}))
    assert [quiet.makes(packet) for _ in range(4)] == [1, 1, 1, 1]


def test_another_nonce_is_another_request(quiet: World) -> None:
    first, second = (pack_request(Request(2, nonce, {1: b"joe", 2: b"example.org"})) for nonce in (b"1", b"2"))
    assert [quiet.makes(first) for _ in range(3)] == [1, 1, 0]
    assert quiet.makes(second) == 1


def test_a_temporary_failure_is_not_kept(quiet: World) -> None:
    quiet.host.user("sticky", 5009, mode=0o1755)
    quiet.host.passwd("sticky:x:5009:5009::{root}/home/sticky:/bin/sh")
    assert [quiet.makes(request("sticky")) for _ in range(4)] == [1, 1, 1, 1]
    assert quiet.respond(request("sticky"))[0] == 4


@pytest.mark.parametrize("error", [Unavailable("database-down"), RuntimeError("not foreseen")])
def test_a_check_that_fails_makes_the_answer_anew(quiet: World, error: Exception) -> None:
    def check() -> bool:
        raise error

    tables = Tables(Settings.from_environment(quiet.host.environment))
    made = []

    def lookup(recipient: Recipient) -> Answer:
        made.append(recipient)
        tables.current.recheck_with(b"database", check)
        return Answer(Verdict.REJECTED, "no-mailbox")

    respond = make_responder(
        tables, Module(lookup, repeatable=True), Settings.from_environment({"CVM_LOOKUP_SECRET": ""}), []
    )
    answers = {respond(request("joe")) for _ in range(5)}
    assert len(answers) == 1
    assert len(made) == 5


def test_no_more_than_a_bounded_number_is_kept(quiet: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_cache, "LIMIT", 3)
    packets = [request("x", f"{number}.elsewhere.example") for number in range(10)]
    for packet in packets:
        for _ in range(3):
            quiet.respond(packet)
    assert [quiet.makes(packet) for packet in packets[-2:]] == [0, 0]
    assert quiet.makes(packets[0]) == 1


def test_no_more_than_a_bounded_number_is_known_to_have_come_once(
    quiet: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_cache, "ONCE_LIMIT", 3)
    packets = [request("once", f"{number}.elsewhere.example") for number in range(9)]
    assert [quiet.makes(packet) for packet in packets] == [1] * 9
    assert [quiet.makes(packets[-1]) for _ in range(2)] == [1, 0]  # it was among the last three
    assert [quiet.makes(packets[0]) for _ in range(3)] == [1, 1, 0]  # it was forgotten
