"""Any bytes to socketmap: `Malformed` and nothing else; the same in one piece and byte by byte; bounded.

Every answer to a question that is found is one netstring with a word that Postfix knows.
"""

from __future__ import annotations

from pieces import said

from cvm_qmail.protocols.question import Immediate, Question
from cvm_qmail.protocols.result import Result
from cvm_qmail.protocols.socketmap import LIMIT, Socketmap
from cvm_qmail.reasons import Outcome

SEEDS = [
    b"18:rcpt joe@ours.test,",
    b"018:rcpt joe@ours.test,17:rcpt no@ours.test,",
    b'21:rcpt "a b"@ours.test,',
    b"5:rcpt ,4:rcpt,0:,",
    b"99999:x",
    b"hello\n",
]


def check(data: bytes) -> None:
    """See the head of this file."""
    whole = said(Socketmap(), [data])
    assert whole == said(Socketmap(), [data[at : at + 1] for at in range(len(data))])
    for request in whole:
        if isinstance(request, Question):
            for outcome in Outcome:
                read(Socketmap().reply(request, Result(outcome, "a-reason")))
        elif isinstance(request, Immediate):
            read(request.reply)
    codec = Socketmap()
    said(codec, [data])
    assert codec.buffered <= max(LIMIT, len(data))


def read(reply: bytes) -> None:
    """One netstring, as Postfix reads it."""
    length, colon, rest = reply.partition(b":")
    assert colon
    assert rest[int(length) :] == b","
    assert rest.startswith((b"OK 1", b"NOTFOUND ", b"TEMP ", b"PERM "))
