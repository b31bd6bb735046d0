"""The four outcomes, and the reply to an SMTP client for each.

Invariants: the outcomes never mix.  Out of scope is never a rejection: the client decides by its own rules.  A
temporary failure is neither yes nor no.

Source: RFC 5321 (4.2.3), RFC 3463 (enhanced status codes).
"""

from __future__ import annotations

from typing import NamedTuple

from cvm_qmail.reasons import Outcome, Rejection


class Result(NamedTuple):
    """The result of a question: an outcome with its reason word (empty: the server sent none)."""

    outcome: Outcome
    reason: str = ""
    rejection: Rejection | None = None
    """The class of a rejection; also of a temporary failure, where the mailbox is known to be full."""
    user: bytes = b""
    """The controlling user, where it is known."""


class Reply(NamedTuple):
    """An SMTP reply."""

    code: int
    status: str
    """The enhanced status code."""
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.text}"


REPLIES: dict[tuple[Outcome, Rejection | None], Reply] = {
    (Outcome.ACCEPTED, None): Reply(250, "2.1.5", "recipient ok"),
    (Outcome.REJECTED, Rejection.MISSING): Reply(550, "5.1.1", "no such mailbox"),
    (Outcome.REJECTED, Rejection.FULL): Reply(552, "5.2.2", "mailbox full"),
    (Outcome.REJECTED, Rejection.DISABLED): Reply(550, "5.2.1", "mailbox disabled"),
    (Outcome.REJECTED, Rejection.BLOCKED): Reply(550, "5.7.1", "mailbox does not take this mail"),
    (Outcome.OUT_OF_SCOPE, None): Reply(250, "2.0.0", "not a domain of this host"),
    (Outcome.TEMPORARY_FAILURE, None): Reply(451, "4.3.0", "cannot tell now"),
    (Outcome.TEMPORARY_FAILURE, Rejection.FULL): Reply(452, "4.2.2", "mailbox full"),
}
"""The SMTP reply for each of the four outcomes.  Every protocol with a text takes it from here."""

MESSAGE_REPLY = Reply(554, "5.1.1", "message refused: a recipient has no mailbox here")
"""The reply to a message, if its recipients were all accepted so that the client does not learn which of them exist."""


def smtp_reply(result: Result) -> Reply:
    """The reply to an SMTP client; a rejection without a class means that the mailbox is missing."""
    default = Rejection.MISSING if result.outcome is Outcome.REJECTED else None
    return REPLIES.get((result.outcome, result.rejection)) or REPLIES[result.outcome, default]


def word(outcome: Outcome) -> str:
    """An outcome as an identifier: ``accepted``, ``rejected``, ``out_of_scope``, ``temporary_failure``."""
    return outcome.name.lower()
