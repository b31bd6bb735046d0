"""qmail-verify's datagrams.

    joe@example.org NUL            a0 joe          low digit 0: valid;  any other: rejected
    gone@example.org NUL           e1              high digit: why, for logs only
    joe@elsewhere.example NUL      10
    (what cannot be determined now)      (no bytes)

A question is an address and a NUL; one that is the NUL alone is a question as well.  An answer is a status byte and
perhaps the controlling user's name.

Invariants: exactly one answer to a question, and never a late one: the client would treat it as the answer to its
next question.  Never the status 2: every client treats it as a rejection, although it was meant as a temporary
failure.  An empty datagram is the temporary failure: the client answers 451 at once and ends the session, as it
does after five seconds of silence.

Source: qmail-verify 1.32 (qmail-verify.c; the patched qmail-smtpd.c).
"""

from __future__ import annotations

from collections.abc import Callable

from cvm_qmail.protocols.address import recipient
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome

LIMIT = 900
"""Bytes of a question that are used; the original ignores the rest."""

SECONDS = 4.0
"""Seconds for an answer: the client waits for five."""

USER_LIMIT = 32
"""Bytes of a name that the original sends."""

POSITIONS = {"mailbox": 9, "dotqmail": 10, "dotqmail-default": 12, "no-mailbox": 14, "virtual-exception": 2}
"""The high digit by reason word."""

TEMPORARY = b""


def _status(position: int, digit: int) -> Callable[[Result], bytes]:
    """The answer with the position of the result's reason, by default this one."""

    def pack(result: Result) -> bytes:
        return bytes((POSITIONS.get(result.reason, position) << 4 | digit,)) + result.user[:USER_LIMIT]

    return pack


ANSWERS: dict[Outcome, Callable[[Result], bytes]] = {
    Outcome.ACCEPTED: _status(10, 0),
    Outcome.REJECTED: _status(14, 1),
    Outcome.OUT_OF_SCOPE: _status(1, 0),
    Outcome.TEMPORARY_FAILURE: lambda _result: TEMPORARY,
}
"""The answer for each of the four outcomes."""


def parse(datagram: bytes) -> Question | None:
    """The question; None: a datagram without bytes, which gets no answer."""
    if not datagram:
        return None
    return Question(recipient(datagram[:LIMIT].partition(b"\0")[0]))


def reply(result: Result) -> bytes:
    """The datagram of an answer."""
    return ANSWERS[result.outcome](result)
