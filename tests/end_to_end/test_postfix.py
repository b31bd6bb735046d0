"""Postfix in front of a qmail host: socketmap and policy delegation, in real SMTP sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hosts import temporary_directory
from smtp_servers import Asked, Postfix, a_stopped_daemon_is_asked_again, asked, each_outcome_has_its_reply, needs, rcpt

pytestmark = [pytest.mark.root, needs("postfix")]

REPLIES = {
    "socketmap": {
        "accepted": b"250 2.1.5 ",
        "rejected": b"550 5.1.1 ",
        "temporary_failure": b"451 4.3.0 ",
        "out_of_scope": b"550 5.1.1 ",  # the domain is in Postfix's list and not in qmail's
    },
    "policy": {
        "accepted": b"250 2.1.5 ",
        "rejected": b"550 5.1.1 ",
        "temporary_failure": b"450 4.3.0 ",
        "out_of_scope": b"250 2.1.5 ",
    },
}
"""How the reply to RCPT begins, by protocol and outcome."""

PROTOCOLS = {
    "socketmap": "socketmap",
    "proxied": "socketmap",
    "chroot": "socketmap",
    "policy": "policy",
    "policy-chroot": "policy",
}
"""The ways to ask."""


class Front(NamedTuple):
    """A Postfix that asks a gateway."""

    asked: Asked
    postfix: Postfix
    ports: dict[str, int]
    table: str


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    """An smtpd for each way to ask."""
    with asked() as gate, temporary_directory() as directory:
        table = f"socketmap:unix:{gate.gateway.directory}/socketmap:rcpt"
        postfix = Postfix(directory, table)
        inside = (
            postfix.queue / "cvm"
        )  # Debian's smtpd runs in a chroot, and sees only what is below the queue directory
        inside.mkdir()
        (inside / "rcpt").hardlink_to(gate.gateway.directory / "socketmap")
        (inside / "policy").hardlink_to(gate.gateway.directory / "policy")
        with postfix.serving(
            socketmap={"relay_recipient_maps": table},
            proxied={"relay_recipient_maps": f"proxy:{table}", "chroot": "y"},
            chroot={"relay_recipient_maps": "socketmap:unix:cvm/rcpt:rcpt", "chroot": "y"},
            policy={"smtpd_recipient_restrictions": policy(gate.gateway.directory / "policy")},
            outside={"relay_recipient_maps": table, "chroot": "y"},
            **{
                "policy-chroot": {"smtpd_recipient_restrictions": policy("cvm/policy"), "chroot": "y"},
                "policy-outside": {
                    "smtpd_recipient_restrictions": policy(gate.gateway.directory / "policy"),
                    "chroot": "y",
                },
            },
        ) as ports:
            yield Front(gate, postfix, ports, table)


def policy(socket: Path | str) -> str:
    """Restrictions that ask the policy service."""
    return f"reject_unauth_destination, check_policy_service unix:{socket}"


@pytest.mark.parametrize("way", PROTOCOLS)
def test_each_outcome_becomes_its_reply(front: Front, way: str) -> None:
    each_outcome_has_its_reply(front.asked, front.ports[way], REPLIES[PROTOCOLS[way]])


@pytest.mark.parametrize("way", PROTOCOLS)
def test_a_daemon_that_is_stopped_is_a_temporary_failure_until_it_is_back(front: Front, way: str) -> None:
    later = REPLIES[PROTOCOLS[way]]["temporary_failure"]
    a_stopped_daemon_is_asked_again(front.asked, front.ports[way], later)


@pytest.mark.parametrize("way", PROTOCOLS)
def test_addresses_are_asked_for_without_the_quotes_of_smtp(front: Front, way: str) -> None:
    front.asked.start()
    for address in (b'"joe"@example.org', b'"ann-a b"@example.org', b'"ann-a\\"b"@example.org'):
        assert rcpt(front.ports[way], address).startswith(b"250 "), address
    assert rcpt(front.ports[way], b'"joe-a b"@example.org').startswith(b"550 5.1.1 ")


def test_the_policy_service_says_why_it_refuses(front: Front) -> None:
    front.asked.start()
    reply = rcpt(front.ports["policy"], b"nobody@example.org")
    assert reply.endswith(b"no such mailbox\r\n")
    assert front.asked.gateway.logged("nobody@example.org policy no-mailbox")


def test_the_policy_service_learns_the_client(front: Front) -> None:
    front.asked.start()
    rcpt(front.ports["policy"], b"ann-client@example.org")
    assert "127.0.0.1" in front.asked.gateway.logged("ann-client@example.org policy")


def test_other_domains_are_refused_as_before(front: Front) -> None:
    front.asked.start()
    for way in PROTOCOLS:
        assert rcpt(front.ports[way], b"joe@client.test").startswith(b"554 5.7.1 "), way


def test_a_socket_that_the_chroot_hides_is_a_temporary_failure(front: Front) -> None:
    front.asked.start()
    assert rcpt(front.ports["outside"], b"joe@example.org").startswith(b"451 4.3.0 ")
    assert rcpt(front.ports["policy-outside"], b"joe@example.org").startswith(b"451 4.3.5 ")


def test_the_null_sender_may_write(front: Front) -> None:
    front.asked.start()
    for way in PROTOCOLS:
        assert rcpt(front.ports[way], b"joe@example.org", sender=b"").startswith(b"250 ")
        assert rcpt(front.ports[way], b"nobody@example.org", sender=b"").startswith(b"550 ")


def test_postmap_prints_what_postfix_would_get(front: Front) -> None:
    front.asked.start()
    assert front.postfix.postmap("joe@example.org", front.table).stdout == "1\n"
    missing = front.postfix.postmap("nobody@example.org", front.table)
    assert (missing.stdout, missing.stderr, missing.returncode) == ("", "", 1)
    assert "cannot tell now" in front.postfix.postmap("late@example.org", front.table).stderr
    front.asked.stop()
    assert "cannot tell now" in front.postfix.postmap("joe@example.org", front.table).stderr
