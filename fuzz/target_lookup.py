"""Any bytes from a CVM module: an outcome, or `NoAnswer`; the reason is a word or nothing.

A packet is whole at its last byte and not before, so that reading need not wait for the end of file.
"""

from __future__ import annotations

import re

from cvm_qmail.protocols.cvm import lookup, packets
from cvm_qmail.reasons import Outcome, Rejection

FACTS = ((1, b"joe"), (2, b"5001"), (3, b"5002"), (5, b"/home/joe"))

SEEDS = [
    packets.pack_response(2, b"", 0, (*FACTS, (240, b"mailbox"))),
    packets.pack_response(2, b"saltsalt", 100, ((16, b"0"), (240, b"no-mailbox"))),
    packets.pack_response(2, b"", 100, ((16, b"1"),)),
    packets.pack_response(2, b"", 4, ((240, b"over-quota"),)),
    b"\7\0\0",
    b"\2\0",
    b"",
]


def check(data: bytes) -> None:
    """See the head of this file."""
    nonce = lookup.nonce_of(data)
    try:
        found = lookup.result_of(data, nonce)
    except lookup.NoAnswer as none:
        if not none.reason.startswith("backend-"):
            raise ValueError(none.reason) from none
    else:
        assert re.fullmatch(r"([a-z][a-z0-9-]{0,63})?", found.reason)
        assert (found.outcome is Outcome.REJECTED) <= (found.rejection is not None)
        assert found.rejection is None or found.rejection in Rejection
        assert lookup.is_whole(data)
    if lookup.is_whole(data) and not data.startswith(b"\2\0"):  # a server that does not know version 2 says 2 0
        assert not any(lookup.is_whole(data[:at]) for at in range(len(data)))
