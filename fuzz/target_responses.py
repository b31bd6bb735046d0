"""Any bytes as a response: `Malformed` or a value, for both versions; nothing else is raised.

The declaration in `dissect` says the same.  What was parsed packs to the very same bytes again (but for
``02 00``, with which a server says that it does not know version 2).
"""

from __future__ import annotations

from cvm_qmail.protocols.cvm import dissect, packets

SEEDS = [
    packets.pack_response(2, b"", 0, [(1, b"joe"), (2, b"500"), (3, b"500"), (5, b"/home/joe"), (8, b"1"), (8, b"2")]),
    packets.pack_response(2, b"saltsalt", 100, [(16, b"1")]),
    packets.pack_response(2, b"n" * 255, 4),
    packets.pack_response(1, b"", 0, [(1, b"joe"), (2, b"500"), (3, b"500"), (5, b"/home/joe")]),
    packets.pack_response(1, b"", 100, [(16, b"0")]),
    b"\2\0",
    b"\2\0\0",
    b"",
]


def check(data: bytes) -> None:
    """See the head of this file."""
    for version in (1, 2):
        try:
            response = packets.parse_response(data, version)
        except packets.Malformed:
            response = None
        try:
            parts = dissect.dissect_response(data, version)
        except packets.Malformed:
            parts = None
        assert (response is None) == (parts is None)
        if response is None or parts is None:
            continue
        facts = tuple((value.type, value.data) for value in parts.facts)
        assert response == packets.Response(parts.code, parts.nonce, facts)
        if (version, data) != (2, b"\2\0"):
            assert packets.pack_response(version, response.nonce, response.code, response.facts) == data
