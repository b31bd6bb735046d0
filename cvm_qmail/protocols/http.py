"""The meaning of HTTP requests, and the JSON of an answer; a library does framing and headers.

    GET /v1/recipients/joe%40example.org

    {"address": "joe@example.org", "outcome": "accepted", "class": null, "reason": "mailbox",
     "meaning": "the user's own address; it needs no .qmail file", "advice": null, "reply": "250 2.1.5 recipient ok"}

The address is percent-encoded bytes in its bare form, without quotes.

Invariants: 200 for accepted, rejected and out of scope; 503 for a temporary failure, so that a client that reads only
the status never takes it for an answer.  Bytes that are not UTF-8 are escaped in JSON.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.address import recipient
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import Result, smtp_reply, word
from cvm_qmail.reasons import Outcome, Rejection, reason_of

RECIPIENTS = b"/v1/recipients/"

_OUTCOMES = {word(outcome): outcome for outcome in Outcome}

_WORD = re.compile(r"[a-z][a-z0-9-]{0,63}")

STATUS: dict[Outcome, int] = {
    Outcome.ACCEPTED: 200,
    Outcome.REJECTED: 200,
    Outcome.OUT_OF_SCOPE: 200,
    Outcome.TEMPORARY_FAILURE: 503,
}
"""The status for each of the four outcomes; the body names the outcome."""


class Request(NamedTuple):
    """The parts of a request that are used."""

    method: bytes
    target: bytes
    """Path and query, as they were sent."""
    authorization: bytes = b""
    host: bytes = b""
    """The header Host."""
    accept: bytes = b""
    """The header Accept."""

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        """The query of the target."""
        return self.target.partition(b"?")[2]


class Response(NamedTuple):
    """A response; Content-Length and Connection are added when it is sent."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def question(path: bytes) -> Question | None:
    """The question of a path; None: it does not name a recipient."""
    if not path.startswith(RECIPIENTS):
        return None
    return Question(recipient(unquote_to_bytes(path[len(RECIPIENTS) :])))


def reply(asked: Question, result: Result) -> Response:
    """The response to a question."""
    row = reason_of(result.reason, result.outcome)
    return json_response(
        {
            "address": asked.recipient.address.decode("utf-8", "backslashreplace"),
            "outcome": word(result.outcome),
            "class": result.rejection.value if result.rejection else None,
            "reason": result.reason or None,
            "meaning": row.meaning if row else None,
            "advice": (row.advice if row else "") or None,
            "reply": str(smtp_reply(result)),
        },
        STATUS[result.outcome],
    )


def path_of(asked: Recipient) -> str:
    """The path that asks about a recipient."""
    return RECIPIENTS.decode() + quote_from_bytes(asked.address, safe="")


def result_of(asked: Recipient, value: object) -> Result:
    """The result in the JSON of a response to the question about `asked`.  Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("not an answer")  # noqa: TRY004 whatever the JSON is
    outcome = _OUTCOMES.get(str(value.get("outcome")))
    if outcome is None or value.get("address") != asked.address.decode("utf-8", "backslashreplace"):
        raise ValueError("not an answer to this question")
    reason = str(value.get("reason") or "")
    missing = Rejection.MISSING if outcome is Outcome.REJECTED else None
    rejection = Rejection(value["class"]) if value.get("class") else missing
    return Result(outcome, reason if _WORD.fullmatch(reason) else "", rejection)


def json_response(value: object, status: int = 200) -> Response:
    """A response whose body is `value` in JSON, and a newline."""
    return Response(status, json.dumps(value).encode() + b"\n", "application/json")
