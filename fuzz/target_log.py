"""Any bytes as what a client and the file system put into a log line: one line, printable ASCII, C's first fields.

The fields are separated by FF FE.  Nothing is lost: the address can be read back from the line, and the
JSON form holds the same.
"""

from __future__ import annotations

import json

from cvm_qmail.answer import Recipient, Unavailable
from cvm_qmail.escape import escape
from cvm_qmail.observe.log import as_line
from cvm_qmail.service.events import Event, Query

SEEDS = [
    b"\xff\xfe".join([b"joe", b"example.org", b"joe", b"/home/joe/.qmail-x", b"Permission denied"]),
    b"\xff\xfe".join([b"joe\n+ ann@example.org", b"\0\x1b[2J", b"j oe", b"\xe4\\x0a", b"in\nwords \xc3\xa4"]),
    b"\xff\xfe".join([b"", b"", b"", b"", b""]),
    b"joe",
]


def check(data: bytes) -> None:
    """See the head of this file."""
    account, *rest = data.split(b"\xff\xfe")
    domain = rest[0] if rest else None
    user, where, detail = (*rest[1:], b"", b"", b"")[:3]
    outcome = Unavailable("why", detail.decode("utf-8", "surrogateescape"), where)
    outcome.user = user
    event = Event(Query(Recipient(account, domain)), outcome, 0.0)
    line = as_line(event, 0.001)
    assert line.isascii()
    assert line.isprintable()
    mark, address, _user, reason, *_ = line.split(" ")
    assert (mark, reason) == ("?", "why")
    whole = account if domain is None else b"%s@%s" % (account, domain)
    assert address == (escape(whole) or "-")
    assert escape(whole).encode().decode("unicode_escape").encode("latin-1") == whole
    as_one = as_line(event, 0.001, "json")
    assert as_one.isprintable()
    assert json.loads(as_one)["where"] == (escape(where) or None)
