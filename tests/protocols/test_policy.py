"""Postfix's policy delegation, whole and in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pieces import ANY, PIECES, cut, said

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols import policy
from cvm_qmail.protocols.policy import Policy
from cvm_qmail.protocols.question import Immediate, Question, Stage
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome, Rejection

NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: b"\n" not in name and b"=" not in name)
VALUES = st.binary(max_size=40).filter(lambda value: b"\n" not in value)


@given(st.lists(st.tuples(VALUES, VALUES, st.dictionaries(NAMES, VALUES, max_size=4)), max_size=4), PIECES)
def test_policy_finds_every_request_in_any_pieces(
    asked: list[tuple[bytes, bytes, dict[bytes, bytes]]], places: list[int]
) -> None:
    data = b"".join(policy.request(more | at_rcpt(address, sender)) for address, sender, more in asked)
    found = said(Policy(), cut(data, places))
    assert [(question.recipient.address, question.sender) for question in found if isinstance(question, Question)] == [
        (address, sender) for address, sender, _ in asked
    ]


def at_rcpt(address: bytes, sender: bytes) -> dict[bytes, bytes]:
    asked = {b"request": b"smtpd_access_policy", b"protocol_state": b"RCPT"}
    return asked | {b"recipient": address, b"sender": sender}


@given(
    st.lists(st.sampled_from([b"request=smtpd_access_policy\n", b"recipient=a@b\n", b"\n", b"x\n", b"=", b"y"])), PIECES
)
def test_policy_says_the_same_of_anything_in_any_pieces(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    assert said(Policy(), cut(data, places)) == said(Policy(), [data])


@given(st.sampled_from(Outcome), st.text(), st.sampled_from([None, *Rejection]))
def test_policy_never_says_ok_and_ends_each_answer(outcome: Outcome, reason: str, rejection: Rejection | None) -> None:
    reply = Policy().reply(ANY, Result(outcome, reason, rejection))
    lines = reply.split(b"\n")
    assert len(lines) == 5
    assert lines[3:] == [b"", b""]
    assert lines[0].startswith({
        Outcome.ACCEPTED: b"action=dunno",
        Outcome.OUT_OF_SCOPE: b"action=dunno",
        Outcome.REJECTED: b"action=55",
        Outcome.TEMPORARY_FAILURE: b"action=defer_if_permit 4.",
    }[outcome])  # fmt: skip
    assert lines[1] == b"outcome=" + outcome.name.lower().encode()


@pytest.mark.parametrize("block", [b"\n", b"recipient=joe@ours.test\n\n", b"request=x\nrecipient=a\n\n", b"hello\n\n"])
def test_what_is_no_policy_request_is_temporary(block: bytes) -> None:
    (reply,) = said(Policy(), [block])
    assert isinstance(reply, Immediate)
    assert reply.reply.startswith(b"action=defer_if_permit 4.3.0 ")


def test_a_blank_line_before_a_request_is_one_that_asks_nothing() -> None:
    blank, other, asked = said(Policy(), [b"\n\n" + policy.request(at_rcpt(b"joe@ours.test", b""))])
    assert isinstance(blank, Immediate)
    assert blank == other
    assert isinstance(asked, Question)


def test_policy_waits_for_no_more_than_its_limit() -> None:
    assert said(Policy(), [b"x" * policy.LIMIT]) == []
    (bad,) = said(Policy(), [b"x" * (policy.LIMIT + 1)])
    assert isinstance(bad, str)


def request(**attributes: str) -> bytes:
    return policy.request({name.encode(): value.encode() for name, value in attributes.items()})


@pytest.mark.parametrize("state", ["CONNECT", "HELO", "EHLO", "MAIL", "ETRN", "SOMETHING"])
def test_policy_has_no_opinion_where_no_recipient_is_meant(state: str) -> None:
    (reply,) = said(Policy(), [request(request="smtpd_access_policy", protocol_state=state, recipient="joe@ours.test")])
    assert reply == Immediate(b"action=dunno\n\n")


@pytest.mark.parametrize("state", ["DATA", "END-OF-MESSAGE"])
def test_policy_asks_for_the_message_at_its_end(state: str) -> None:
    data = request(request="smtpd_access_policy", protocol_state=state, instance="12.3", recipient="joe@ours.test")
    (asked,) = said(Policy(), [data])
    assert isinstance(asked, Question)
    assert (asked.stage, asked.message) == (Stage.MESSAGE, b"12.3")
    assert Policy().reply(asked, Result(Outcome.ACCEPTED)) == b"action=dunno\n\n"
    assert Policy().reply(asked, Result(Outcome.REJECTED)).startswith(b"action=554 5.1.1 ")


def test_policy_says_who_asks() -> None:
    data = request(
        request="smtpd_access_policy", protocol_state="RCPT", recipient="joe", sender="", client_address="192.0.2.7"
    )
    assert said(Policy(), [data]) == [Question(Recipient(b"joe", None), b"", b"192.0.2.7")]


def test_a_policy_request_that_never_ends_is_malformed() -> None:
    found = said(Policy(), [b"x=y\n" * 5000] * 5)
    assert len(found) == 1
    assert isinstance(found[0], str)
