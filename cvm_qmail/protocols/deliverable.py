"""Qmail::Deliverable's HTTP interface, as the plug-ins of Haraka and qpsmtpd use it.

    GET /qd1/deliverable?joe%40example.org        200 and a decimal number

The query is the percent-encoded address without a name; Haraka sends no query for the empty address.  Haraka sends
the quoted form, which is unquoted.

Invariants: a temporary failure is a status of 5xx, never a number: Haraka treats 0x11, 0x21 and the like as a
rejection, and an empty body (204 has none) as 0.  Every answer has its length, and then the connection is closed:
otherwise one client waits 180 seconds for the end of an answer.

Source: Qmail::Deliverable 1.08 (qmail-deliverabled, Client.pm); haraka-plugin-qmail-deliverable 1.4.0.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from cvm_qmail.protocols.address import recipient, unquoted
from cvm_qmail.protocols.http import Request, Response
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import Result, smtp_reply
from cvm_qmail.reasons import Outcome

PATH = b"/qd1/deliverable"

DELIVERABLE, VALIAS, CATCH_ALL, ACCOUNT = 0xF1, 0xF3, 0xF4, 0xF5
NOT_DELIVERABLE, NOT_LOCAL = 0x00, 0xFF

NUMBERS = {
    "account": ACCOUNT,
    "account-dotqmail": ACCOUNT,
    "sql-alias": VALIAS,
    "catch-all": CATCH_ALL,
}
"""The number of an acceptance by its reason word; the others are `DELIVERABLE`."""

FORBIDDEN = Response(403, b"only GET /qd1/deliverable?ADDRESS is known here\n")


def _number(number: int) -> Response:
    return Response(200, b"%d" % number, "text/plain")


RESPONSES: dict[Outcome, Callable[[Result], Response]] = {
    Outcome.ACCEPTED: lambda result: _number(NUMBERS.get(result.reason, DELIVERABLE)),
    Outcome.REJECTED: lambda _result: _number(NOT_DELIVERABLE),
    Outcome.OUT_OF_SCOPE: lambda _result: _number(NOT_LOCAL),
    Outcome.TEMPORARY_FAILURE: lambda result: Response(503, f"{smtp_reply(result).text}\n".encode()),
}
"""The reply for each of the four outcomes."""


def question(request: Request) -> Question | None:
    """The question of a target; None for any other target."""
    path, _, query = request.target.partition(b"?")
    if request.method != b"GET" or path != PATH:
        return None
    return Question(recipient(unquoted(unquote_to_bytes(query))))


def reply(result: Result) -> Response:
    """The response to a question."""
    return RESPONSES[result.outcome](result)
