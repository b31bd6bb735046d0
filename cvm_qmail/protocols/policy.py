"""Postfix's policy delegation.

    request=smtpd_access_policy          action=550 5.1.1 no such mailbox
    protocol_state=RCPT                  outcome=rejected
    recipient=joe@example.org            reason=no-mailbox
    sender=ann@example.net
    client_address=192.0.2.7
    <an empty line>                      <an empty line>

Postfix reads the line ``action`` and ignores the lines after it; they are for cvm-rcptcheck, which takes the outcome
from them.  By the action alone: ``dunno`` accepted or out of scope; three digits of 5xx rejected, and the rest
of the line is the SMTP reply; ``defer_if_permit`` temporary, and the rest of the line is the reply without its code.

A request at the protocol state RCPT or VRFY asks about its recipient.  DATA and END-OF-MESSAGE ask about the message
(see `Stage.MESSAGE`), named by ``instance``.  At any other state the answer is ``dunno``.  The recipient is the
bare form, without quotes.  Unknown names are ignored, and so are lines without ``=``; the order is free.

Invariants: never ``ok``, which would skip the restrictions that follow.  Line ends are LF: Postfix does not see CR LF.

Source: Postfix SMTPD_POLICY_README; Postfix 3.7.11 (smtpd_check.c, check_table_result; attr_scan_plain.c).
"""

from __future__ import annotations

from collections.abc import Callable

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.address import recipient
from cvm_qmail.protocols.question import Immediate, Malformed, Question, Stage
from cvm_qmail.protocols.result import MESSAGE_REPLY, Result, smtp_reply, word
from cvm_qmail.reasons import Outcome

LIMIT = 65536
"""Bytes of one request: addresses have up to 2,010 bytes, names of certificates are longer."""

_DEFER = "defer_if_permit"

_NOT_A_REQUEST = b"action=defer_if_permit 4.3.0 not a policy request\noutcome=temporary_failure\nreason=malformed\n\n"

NO_OPINION = b"action=dunno\n\n"
"""The answer at a state of the dialogue at which there is nothing to check."""

_ACTIONS: dict[Outcome, Callable[[Result], str]] = {
    Outcome.ACCEPTED: lambda _result: "dunno",
    Outcome.REJECTED: lambda result: str(smtp_reply(result)),
    Outcome.OUT_OF_SCOPE: lambda _result: "dunno",
    Outcome.TEMPORARY_FAILURE: lambda result: f"{_DEFER} {smtp_reply(result).status} {smtp_reply(result).text}",
}
"""The action for each of the four outcomes."""

_STAGES = {
    b"RCPT": Stage.RECIPIENT,
    b"VRFY": Stage.RECIPIENT,
    b"DATA": Stage.MESSAGE,
    b"END-OF-MESSAGE": Stage.MESSAGE,
}


class Policy:
    """One connection: bytes in, questions out, in their order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def receive(self, data: bytes) -> None:
        """Takes bytes from the client."""
        self._buffer += data

    @property
    def buffered(self) -> int:
        """The number of bytes that are not yet parsed."""
        return len(self._buffer)

    def next_request(self) -> Question | Immediate | None:
        """The next request; None: it is not complete yet.  Raises `Malformed`."""
        if self._buffer.startswith(b"\n"):
            block, size = b"", 1
        else:
            at = self._buffer.find(b"\n\n", max(0, self._searched - 1))
            if at < 0:
                if len(self._buffer) > LIMIT:
                    raise Malformed(f"policy request of more than {LIMIT} bytes", _NOT_A_REQUEST)
                self._searched = len(self._buffer)
                return None
            block, size = bytes(self._buffer[:at]), at + 2
        del self._buffer[:size]
        self._searched = 0
        return _question(block)

    def reply(self, question: Question, result: Result) -> bytes:
        """The bytes of an answer."""
        if question.stage is Stage.MESSAGE:
            if result.outcome is not Outcome.REJECTED:
                return NO_OPINION
            action = str(MESSAGE_REPLY)
        else:
            action = _ACTIONS[result.outcome](result)
        reason = result.reason.encode("ascii", "backslashreplace").replace(b"\n", b" ")
        return b"action=%s\noutcome=%s\nreason=%s\n\n" % (action.encode(), word(result.outcome).encode(), reason)


def request(attributes: dict[bytes, bytes]) -> bytes:
    """The bytes of a request, for a client.  Values have no newline."""
    return b"".join(b"%s=%s\n" % pair for pair in attributes.items()) + b"\n"


def _question(block: bytes) -> Question | Immediate:
    given: dict[bytes, bytes] = {}
    for line in block.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals:
            given[name] = value
    if given.get(b"request") != b"smtpd_access_policy":
        return Immediate(_NOT_A_REQUEST, malformed=True)
    stage = _STAGES.get(given.get(b"protocol_state", b"RCPT"))
    if stage is None:
        return Immediate(NO_OPINION)
    if stage is Stage.RECIPIENT and b"recipient" not in given:
        return Immediate(_NOT_A_REQUEST, malformed=True)
    asked = recipient(given[b"recipient"]) if stage is Stage.RECIPIENT else Recipient(b"", None)
    return Question(
        asked,
        sender=given.get(b"sender"),
        client=given.get(b"client_address") or None,
        message=given.get(b"instance") or None,
        stage=stage,
    )
