"""Any bytes as an address: every codec of one question understands them, or says that it does not.

What qmail-verify, Qmail::Deliverable and /v1 hand on is the address that was sent; quoting is undone once, and what
comes out of it has at most the bytes that went in.
"""

from __future__ import annotations

import json
from urllib.parse import quote_from_bytes

from cvm_qmail.protocols import deliverable, http, qmail_verify
from cvm_qmail.protocols.address import recipient, unquoted
from cvm_qmail.protocols.http import Request
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome

SEEDS = [
    b"joe@ours.test",
    b'"a b"@ours.test',
    b'"a\\"b\\\\c"@ours.test',
    b'""@ours.test',
    b"a@b@ours.test\0more",
    b"jos\xe9@[127.0.0.1]",
    b"/v1/recipients/%zz%",
    b"/qd1/deliverable?%22a%20b%22%40ours.test",
    b"",
]


def check(data: bytes) -> None:
    """See the head of this file."""
    bare = unquoted(data)
    assert bare == data or (data.startswith(b'"') and len(bare) <= len(data) - 2)
    assert recipient(bare).address == bare
    question = qmail_verify.parse(data)
    if question is not None:
        assert question.recipient.address == data[: qmail_verify.LIMIT].partition(b"\0")[0]
    for target in (data, b"/qd1/deliverable?" + data, b"/v1/recipients/" + data):
        deliverable.question(Request(b"GET", target))
        http.question(target)
    encoded = quote_from_bytes(data, safe="").encode()
    asked = deliverable.question(Request(b"GET", b"/qd1/deliverable?" + encoded))
    assert asked is not None
    assert asked.recipient.address == bare
    named = http.question(b"/v1/recipients/" + encoded)
    assert named is not None
    assert named.recipient.address == data
    for outcome in Outcome:
        body = http.reply(named, Result(outcome)).body
        assert body.isascii()
        assert json.loads(body)["outcome"] == outcome.name.lower()
