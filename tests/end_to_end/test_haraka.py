"""Haraka with its plug-in qmail-deliverable in front of a qmail host, in real SMTP sessions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from smtp_servers import (
    Front,
    a_stopped_daemon_is_asked_again,
    asked,
    each_outcome_has_its_reply,
    haraka,
    needs,
    rcpt,
)

pytestmark = [pytest.mark.root, pytest.mark.peer("node"), needs("haraka")]

REPLIES = {
    "accepted": b"250 ",
    "rejected": b"550 ",
    "temporary_failure": b"450 ",
    "out_of_scope": b"550 ",  # no plug-in of this Haraka takes it
}


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with asked() as gate, haraka(gate.gateway.ports["deliverable"]) as port:
        yield Front(gate, port)


def test_each_outcome_becomes_its_reply(front: Front) -> None:
    each_outcome_has_its_reply(*front, REPLIES)


def test_addresses_are_asked_for_without_the_quotes_of_smtp(front: Front) -> None:
    front.asked.start()
    for address in (b'"joe"@example.org', b'"ann-a b"@example.org', "ann-é@example.org".encode()):
        assert rcpt(front.port, address).startswith(b"250 "), address
    assert rcpt(front.port, b'"joe-a b"@example.org').startswith(b"550 ")


def test_a_daemon_that_is_stopped_is_a_temporary_failure_until_it_is_back(front: Front) -> None:
    a_stopped_daemon_is_asked_again(*front, REPLIES["temporary_failure"])
