"""Exim in front of a qmail host, by ``${readsocket}`` in an ACL, in real SMTP sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from smtp_servers import (
    Front,
    a_stopped_daemon_is_asked_again,
    asked,
    each_outcome_has_its_reply,
    exim,
    needs,
    rcpt,
)

pytestmark = [pytest.mark.root, needs("exim4-daemon-light")]

DOCUMENT = Path(__file__).parents[2] / "docs/mail-servers/exim.md"

REPLIES = {
    "accepted": b"250 Accepted",
    "rejected": b"550 5.1.1 no such mailbox",
    "temporary_failure": b"451 4.3.0 cannot tell now",
    "out_of_scope": b"550 5.1.1 no such mailbox",  # the domain is in Exim's list and not in qmail's
}


def acl(socket: Path) -> str:
    """The lines of the manual."""
    text = DOCUMENT.read_text()
    block = text[text.index("  warn    set acl_m_q") :]
    return block[: block.index("```")].replace("/run/cvm-gateway/socketmap", str(socket))


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with asked() as gate, exim(acl(gate.gateway.directory / "socketmap")) as port:
        yield Front(gate, port)


def test_each_outcome_becomes_its_reply(front: Front) -> None:
    each_outcome_has_its_reply(*front, REPLIES)


def test_addresses_are_asked_for_without_the_quotes_of_smtp(front: Front) -> None:
    front.asked.start()
    for address in (b'"joe"@example.org', b'"ann-a b"@example.org', b'"ann-a@b"@example.org', b"ann-\xe9@example.org"):
        assert rcpt(front.port, address).startswith(b"250 "), address
    assert rcpt(front.port, b'"joe-a b"@example.org').startswith(b"550 5.1.1 ")


def test_other_domains_are_refused_as_before(front: Front) -> None:
    front.asked.start()
    assert rcpt(front.port, b"joe@client.test").startswith(b"550 ")


def test_a_daemon_that_is_stopped_is_a_temporary_failure_until_it_is_back(front: Front) -> None:
    a_stopped_daemon_is_asked_again(*front, REPLIES["temporary_failure"])


def test_a_gateway_that_is_not_there_is_a_temporary_failure() -> None:
    with exim(acl(Path("/nonexistent"))) as port:
        assert rcpt(port, b"joe@example.org").startswith(REPLIES["temporary_failure"])
