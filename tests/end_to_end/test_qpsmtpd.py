"""qpsmtpd in front of a qmail host with qmail_deliverable, and its logins by auth_cvm_unix_local, in real sessions."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from end_to_end.test_vpopmail import RIGHT, WRONG, mixed_host, started
from hosts import temporary_directory
from serving import Server
from smtp_servers import OUTCOMES, Asked, Session, asked, needs, qpsmtpd, rcpt, session

pytestmark = [pytest.mark.root, pytest.mark.peer("perl"), needs("qpsmtpd")]

REPLIES = {
    "accepted": b"250 ",
    "rejected": b"550 Sorry, no mailbox by that name",
    "temporary_failure": b"250 ",  # the plug-in knows no "later": it accepts
    "out_of_scope": b"250 ",  # rcpt_ok decides
}


class Front(NamedTuple):
    """A qpsmtpd that asks a gateway."""

    asked: Asked
    port: int


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with asked() as gate:
        plugin = f"qmail_deliverable server 127.0.0.1:{gate.gateway.ports['deliverable']}"
        with qpsmtpd(plugin, hosts=("example.org", "elsewhere.test")) as port:
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


def test_other_domains_are_refused_as_before(front: Front) -> None:
    front.asked.start()
    assert rcpt(front.port, b"joe@client.test").startswith(b"550 ")


def test_a_daemon_that_is_stopped_refuses_nobody_and_is_asked_again(front: Front) -> None:
    front.asked.stop()
    with session(front.port) as talk:
        for address in OUTCOMES:
            assert talk.say(b"RCPT TO:<" + address + b">").startswith(b"250 "), address
        front.asked.start()
        assert talk.say(b"RCPT TO:<nobody@example.org>").startswith(REPLIES["rejected"])


# -- logins -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logins() -> Iterator[tuple[Server, int]]:
    """cvm-vpopmail for logins, and a qpsmtpd that asks it."""
    line = "auth/auth_cvm_unix_local cvm_socket {} enable_smtp yes enable_ssmtp yes"
    with temporary_directory() as root, started(mixed_host(root)) as server, qpsmtpd(line.format(server.path)) as port:
        yield server, port


def login(port: int, user: str, password: str) -> bytes:
    """The reply to AUTH PLAIN."""
    talk = Session(port)
    try:
        assert b"AUTH" in talk.say(b"EHLO client.test")
        return talk.say(b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()))
    finally:
        talk.close()


def test_a_login_is_proven_by_vpopmail(logins: tuple[Server, int]) -> None:
    _, port = logins
    assert login(port, "bob@example.com", RIGHT).startswith(b"235 ")
    assert login(port, "bob@example.com", WRONG).startswith(b"535 ")
    assert login(port, "nobody@example.com", RIGHT).startswith(b"535 ")


def test_a_login_is_refused_while_nobody_can_prove_it(logins: tuple[Server, int]) -> None:
    server, port = logins
    server.stop()
    assert login(port, "bob@example.com", RIGHT).startswith(b"535 ")
