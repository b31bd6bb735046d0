"""Any bytes to a responder: never an exception; a sound response of at most 512 bytes that echoes the nonce.

Success carries facts 1, 2, 3 and 5, a rejection its scope and nothing else, an error nothing; nothing
is answered to nothing.  The codec and its declaration in `dissect` say the same, or both refuse.
"""

from __future__ import annotations

from collections.abc import Callable

from memory import module, request, responding, small

from cvm_qmail.protocols.cvm import dissect, packets
from cvm_qmail.protocols.cvm.responder import Event

EVENTS: list[Event] = []
RESPOND = responding(module(small()), EVENTS)

SEEDS = [
    request(account=b"joe", domain=b"example.org"),
    request(nonce=b"saltsalt", account=b"joe-list-x", domain=b"V.Example", secret=b"word"),
    request(account=b"nobody"),
    request(1, account=b"joe", domain=b"example.org", password=b"word"),
    request(1, account=b"a@b", domain=b""),
    request(account=b"%" * 200, domain=b"." * 200),
    b"\2",
    b"",
]


def check(data: bytes) -> None:
    """See the head of this file."""
    EVENTS.clear()
    response = RESPOND(data)
    if not data:
        assert response == b""
        return
    assert len(response) <= packets.LIMIT
    if len(data) <= packets.LIMIT and data[0] == 2 and len(data) >= 2 and len(data) >= 2 + data[1]:
        assert response[1 : 2 + data[1]] == data[1 : 2 + data[1]]
    parsed = packets.parse_response(response, 2 if data[0] == 2 or len(data) > packets.LIMIT else 1)
    kinds = {kind for kind, _ in parsed.facts}
    assert kinds >= {1, 2, 3, 5} if parsed.code == 0 else kinds == ({16} if parsed.code == 100 else set())
    assert said(packets.parse_request, data) == said(declared, data)


def declared(data: bytes) -> packets.Request:
    """A request as `dissect` sees it, in `wire`'s words."""
    parts = dissect.dissect_request(data)
    return packets.Request(parts.version, parts.nonce, {value.type: value.data for value in parts.credentials})


def said(parse: Callable[[bytes], object], data: bytes) -> object:
    """What a parser says; None: it refuses."""
    try:
        return parse(data)
    except packets.Malformed:
        return None
