"""qmail-verify's datagrams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.protocols import qmail_verify
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome, Rejection


@given(st.binary())
def test_any_datagram_is_a_question_up_to_its_nul(data: bytes) -> None:
    question = qmail_verify.parse(data)
    if question is None:
        assert data == b""
    else:
        assert question.recipient.address == data[:900].split(b"\0")[0]


@given(st.sampled_from(Outcome), st.text(), st.sampled_from([None, *Rejection]), st.binary())
def test_the_low_digit_is_zero_one_or_there_is_none(
    outcome: Outcome, reason: str, rejection: Rejection | None, user: bytes
) -> None:
    reply = qmail_verify.reply(Result(outcome, reason, rejection, user))
    assert len(reply) <= 33
    if outcome is Outcome.TEMPORARY_FAILURE:
        assert reply == b""
    else:
        assert reply[0] & 15 == (outcome is Outcome.REJECTED)


def test_the_high_digit_says_why_as_the_original_does() -> None:
    digits = {
        ("mailbox", Outcome.ACCEPTED): 9,
        ("dotqmail", Outcome.ACCEPTED): 10,
        ("dotqmail-default", Outcome.ACCEPTED): 12,
        ("account", Outcome.ACCEPTED): 10,
        ("no-mailbox", Outcome.REJECTED): 14,
        ("no-account", Outcome.REJECTED): 14,
        ("remote", Outcome.OUT_OF_SCOPE): 1,
        ("virtual-exception", Outcome.OUT_OF_SCOPE): 2,
    }
    for (reason, outcome), digit in digits.items():
        assert qmail_verify.reply(Result(outcome, reason))[0] >> 4 == digit
