"""qpsmtpd in front of a qmail host with qmail_deliverable, and its logins by auth_cvm_unix_local, in real sessions."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from end_to_end.test_vpopmail import RIGHT, WRONG, mixed_host, started
from hosts import temporary_directory
from serving import Server
from smtp_servers import (
    Front,
    Session,
    a_stopped_daemon_is_asked_again,
    asked,
    each_outcome_has_its_reply,
    needs,
    qpsmtpd,
    rcpt,
)

pytestmark = [pytest.mark.root, pytest.mark.peer("perl"), needs("qpsmtpd")]

REPLIES = {
    "accepted": b"250 ",
    "rejected": b"550 Sorry, no mailbox by that name",
    "temporary_failure": b"250 ",  # the plug-in knows no "later": it accepts
    "out_of_scope": b"250 ",  # rcpt_ok decides
}


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with asked() as gate:
        plugin = f"qmail_deliverable server 127.0.0.1:{gate.gateway.ports['deliverable']}"
        with qpsmtpd(plugin, hosts=("example.org", "elsewhere.test")) as port:
            yield Front(gate, port)


def test_each_outcome_becomes_its_reply(front: Front) -> None:
    each_outcome_has_its_reply(*front, REPLIES)


def test_other_domains_are_refused_as_before(front: Front) -> None:
    front.asked.start()
    assert rcpt(front.port, b"joe@client.test").startswith(b"550 ")


def test_a_daemon_that_is_stopped_refuses_nobody_and_is_asked_again(front: Front) -> None:
    a_stopped_daemon_is_asked_again(*front, b"250 ", b"nobody@example.org", REPLIES["rejected"])


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
