"""Events by their parts, as log lines show them."""

from __future__ import annotations

from cvm_qmail.answer import Answer, Kind, Outcome, Recipient, Unavailable, Verdict
from cvm_qmail.service.events import Event, Query

VERDICTS = {verdict.value: verdict for verdict in Verdict}


def event(
    mark: str = "+",
    account: bytes = b"joe-foo",
    domain: bytes | None = b"example.org",
    *,
    user: bytes = b"joe",
    reason: str = "dotqmail",
    where: bytes = b"/home/joe/.qmail-foo",
    detail: str = "",
    began: float = 0.0,
    request: bytes = b"",
    response: bytes = b"",
) -> Event:
    """An event with this result: the value of a `Verdict`, or ``?``."""
    if mark == "?":
        outcome: Outcome = Unavailable(reason, detail, where, Kind.TEMPORARY)
        outcome.user = user
    else:
        outcome = Answer(VERDICTS[mark], reason, user, where, detail=detail)
    return Event(Query(Recipient(account, domain)), outcome, began, request, response)
