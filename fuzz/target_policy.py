"""Any bytes to the policy codec: `Malformed` and nothing else; the same in one piece and byte by byte.

Every answer is one block that ends with an empty line, whose action is never ``ok``.
"""

from __future__ import annotations

from pieces import said

from cvm_qmail.protocols.policy import Policy
from cvm_qmail.protocols.question import Immediate, Question
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome

SEEDS = [
    b"request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=joe@ours.test\nsender=\nclient_address=192.0.2.7\n\n",
    b"request=smtpd_access_policy\nprotocol_state=DATA\ninstance=1.2.3\n\n",
    b"request=smtpd_access_policy\nrecipient=a=b@ours.test\nrecipient=c@d\n\n\n",
    b"request=junk\n\n",
    b"hello\n\n",
    b"\n",
]


def check(data: bytes) -> None:
    """See the head of this file."""
    whole = said(Policy(), [data])
    assert whole == said(Policy(), [data[at : at + 1] for at in range(len(data))])
    for request in whole:
        if isinstance(request, Question):
            for outcome in Outcome:
                read(Policy().reply(request, Result(outcome, "a-reason")))
        elif isinstance(request, Immediate):
            read(request.reply)


def read(reply: bytes) -> None:
    """One block, as Postfix reads it."""
    assert reply.endswith(b"\n\n")
    assert reply.index(b"\n\n") == len(reply) - 2
    assert reply.startswith((b"action=dunno\n", b"action=5", b"action=defer_if_permit 4."))
