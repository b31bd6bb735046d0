"""Haraka with its plug-in qmail-deliverable in front of a qmail host, in real SMTP sessions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from smtp_servers import OUTCOMES, Asked, asked, haraka, needs, rcpt, session

pytestmark = [pytest.mark.root, pytest.mark.peer("node"), needs("haraka")]

REPLIES = {
    "accepted": b"250 ",
    "rejected": b"550 ",
    "temporary_failure": b"450 ",
    "out_of_scope": b"550 ",  # no plug-in of this Haraka takes it
}


class Front(NamedTuple):
    """A Haraka that asks a gateway."""

    asked: Asked
    port: int


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with asked() as gate, haraka(gate.gateway.ports["deliverable"]) as port:
        yield Front(gate, port)


def test_each_outcome_becomes_its_reply(front: Front) -> None:
    front.asked.start()
    for address, outcome in OUTCOMES.items():
        assert rcpt(front.port, address).startswith(REPLIES[outcome]), address


def test_all_recipients_of_a_session_are_asked_for(front: Front) -> None:
    front.asked.start()
    with session(front.port) as talk:
        for address, outcome in OUTCOMES.items():
            assert talk.say(b"RCPT TO:<" + address + b">").startswith(REPLIES[outcome]), address


def test_addresses_are_asked_for_without_the_quotes_of_smtp(front: Front) -> None:
    front.asked.start()
    for address in (b'"joe"@example.org', b'"ann-a b"@example.org', "ann-é@example.org".encode()):
        assert rcpt(front.port, address).startswith(b"250 "), address
    assert rcpt(front.port, b'"joe-a b"@example.org').startswith(b"550 ")


def test_a_daemon_that_is_stopped_is_a_temporary_failure_until_it_is_back(front: Front) -> None:
    front.asked.stop()
    with session(front.port) as talk:
        for address in OUTCOMES:
            assert talk.say(b"RCPT TO:<" + address + b">").startswith(REPLIES["temporary_failure"]), address
        front.asked.start()
        assert talk.say(b"RCPT TO:<joe@example.org>").startswith(b"250 ")
