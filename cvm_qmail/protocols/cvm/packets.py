"""CVM packets, versions 1 and 2, both directions.

Invariants: bytes in, values out, and back; this file imports nothing of ours and nothing of the system.
The functions raise `Malformed` for bad input and nothing else; any other exception here is a bug.  A
packet never exceeds `LIMIT` bytes.  `dissect.py` declares the same packets a second time, for display;
a property test proves that the two agree.

    version 2   request   02 L nonce[L] { type len bytes[len] }* 00
                response  code L nonce[L] { fact len bytes[len] }* 00
    version 1   request   01 account 00 domain 00 [ credential 00 ] 00
                response  code { fact bytes 00 }* 00

Source: the protocol documents of cvm 0.97; the C program's behaviour on well-formed packets.  Where
the C program reads beyond a packet, dies of it or accepts garbage, this module's answer is BAD_CLIDATA.
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

LIMIT = 512
"""Bytes of a whole packet (CVM_BUFSIZE)."""

VALUE_LIMIT = 255
"""Bytes of one value in a version 2 packet: its length is one byte."""


class Code(IntEnum):
    """First byte of a response.  All but SUCCESS and PERMFAIL are temporary."""

    SUCCESS = 0
    GENERAL = 1
    BAD_CLIDATA = 2
    BAD_MODDATA = 3
    IO = 4
    NOFACT = 5
    CONFIG = 6
    NOCRED = 7
    PERMFAIL = 100


class Credential(IntEnum):
    """Types of the values in a request.  Other numbers are ignored."""

    ACCOUNT = 1
    DOMAIN = 2
    PASSWORD = 3
    SECRET = 4
    CHALLENGE = 5
    RESPONSE = 6
    RESPONSE_TYPE = 7
    REASON = 240
    """Private to this software, and empty: asks for the fact of the same number.  Other servers ignore it."""
    FROM_SHADOW = 241
    """Private to this software, and empty: a shadow process asks, to compare answers; do not pass it on."""


class Fact(IntEnum):
    """Types of the values in a response."""

    USERNAME = 1
    USERID = 2
    GROUPID = 3
    REALNAME = 4
    DIRECTORY = 5
    SHELL = 6
    GROUPNAME = 7
    SUPP_GROUPID = 8
    SYS_USERNAME = 9
    SYS_DIRECTORY = 10
    OFFICE_LOCATION = 11
    WORK_PHONE = 12
    HOME_PHONE = 13
    DOMAIN = 14
    MAILBOX = 15
    OUTOFSCOPE = 16
    REASON = 240
    """Private to this software: the reason word, only if the request asked for it.

    Never a path, a user or a detail.
    """


class Request(NamedTuple):
    """What a client asks.  `credentials` maps types to values; of a repeated type the last one is used."""

    version: int
    nonce: bytes
    credentials: Mapping[int, bytes]


class Response(NamedTuple):
    """What a module answers.  `facts` keep their order; a type may repeat."""

    code: int
    nonce: bytes
    facts: tuple[tuple[int, bytes], ...]


class Malformed(Exception):
    """Bytes that are not a packet.  For a request, `reply` is the response to send."""

    def __init__(self, message: str, reply: bytes = b"\x02\x00\x00") -> None:
        super().__init__(message)
        self.reply = reply


OVERSIZE_REPLY = b"\x02\x00\x00"
"""The reply to a request of more than LIMIT bytes, and to one whose nonce is cut short."""

_NO_NONCE = b"\x02\x00"
"""The reply to an unsupported version, and to a malformed version 1 request."""


def parse_request(packet: bytes, lone_credential: int = Credential.PASSWORD) -> Request:
    """The request in `packet`.

    A version 1 packet has one credential without a type; `lone_credential` says what it is (SECRET for a module
    with CVM_LOOKUP_SECRET in its environment, else PASSWORD).  Raises `Malformed`.
    """
    if len(packet) > LIMIT:
        raise Malformed(f"request longer than {LIMIT} bytes", OVERSIZE_REPLY)
    if not packet:
        raise Malformed("empty request", b"")
    version = packet[0]
    if version == 2:
        return _parse_request_2(packet)
    if version == 1:
        return _parse_request_1(packet, lone_credential)
    raise Malformed(f"protocol version {version}, expected 1 or 2", _NO_NONCE)


def _parse_request_2(packet: bytes) -> Request:
    end = len(packet)
    if end < 2 or end < 2 + packet[1]:
        raise Malformed("nonce cut short", OVERSIZE_REPLY)
    at = 2 + packet[1]
    nonce = packet[2:at]
    credentials: dict[int, bytes] = {}
    while at < end:
        kind = packet[at]
        if not kind:
            if at + 1 != end:
                raise Malformed("bytes after the end of the request", refusal(packet, 2))
            return Request(2, nonce, credentials)
        start = at + 2
        if start > end:
            break
        at = start + packet[at + 1]
        if at > end:
            break
        credentials[kind] = packet[start:at]
    raise Malformed("request cut short", refusal(packet, 2))


def _parse_request_1(packet: bytes, lone_credential: int) -> Request:
    strings = packet[1:].split(b"\0")
    # account, domain, perhaps a credential; each ended by a NUL, then one more NUL
    if len(strings) not in (4, 5) or strings[-1] or strings[-2] or (len(strings) == 5 and not strings[2]):
        raise Malformed("not a version 1 request of two or three strings", _NO_NONCE)
    credentials: dict[int, bytes] = {Credential.ACCOUNT: strings[0]}
    if strings[1]:
        credentials[Credential.DOMAIN] = strings[1]
    if len(strings) == 5:
        credentials[lone_credential] = strings[2]
    return Request(1, b"", credentials)


def pack_request(request: Request) -> bytes:
    """The packet for `request`.  Raises `Malformed` if it does not fit its version."""
    credentials = request.credentials
    if request.version == 2:
        parts = [b"\2", _value(request.nonce)]
        for kind, value in credentials.items():
            if not 0 < kind < 256:
                raise Malformed(f"credential type {kind}, expected 1 to 255")
            parts += [bytes([kind]), _value(value)]
        parts.append(b"\0")
    elif request.version == 1:
        account = credentials.get(Credential.ACCOUNT, b"")
        domain = credentials.get(Credential.DOMAIN, b"")
        rest = [v for k, v in credentials.items() if k not in (Credential.ACCOUNT, Credential.DOMAIN)]
        if len(rest) > 1 or any(b"\0" in value for value in (account, domain, *rest)):
            raise Malformed("a version 1 request holds one credential at most, and no NUL")
        if rest == [b""]:
            raise Malformed("a version 1 request cannot hold an empty credential")
        parts = [b"\1", account, b"\0", domain, b"\0", *(value + b"\0" for value in rest), b"\0"]
    else:
        raise Malformed(f"protocol version {request.version}, expected 1 or 2")
    packet = b"".join(parts)
    if len(packet) > LIMIT:
        raise Malformed(f"request of {len(packet)} bytes, expected at most {LIMIT}")
    return packet


def _value(value: bytes) -> bytes:
    if len(value) > VALUE_LIMIT:
        raise Malformed(f"value of {len(value)} bytes, expected at most {VALUE_LIMIT}")
    return bytes([len(value)]) + value


_BYTE = {number: bytes((number,)) for number in range(256)}


def pack_response(version: int, nonce: bytes, code: int, facts: Iterable[tuple[int, bytes | None]] = ()) -> bytes:
    """The packet of a response; a fact None is left out.  Raises `Malformed` if it does not fit its version."""
    parts = []
    try:
        if version == 1:
            parts.append(_BYTE[code])
            for kind, value in facts:
                if value is None:
                    continue
                if not kind or b"\0" in value:
                    raise Malformed("a version 1 response cannot hold a NUL in a fact")
                parts += (_BYTE[kind], value, b"\0")
        else:
            parts += (_BYTE[code], _BYTE[len(nonce)], nonce)
            for kind, value in facts:
                if not kind:
                    raise Malformed("fact type 0, expected 1 to 255")
                if value is not None:
                    parts += (_BYTE[kind], _BYTE[len(value)], value)
    except KeyError:
        raise Malformed(f"a code, a type or a length of more than {VALUE_LIMIT}") from None
    parts.append(b"\0")
    packet = b"".join(parts)
    if len(packet) > LIMIT:
        raise Malformed(f"response of {len(packet)} bytes, expected at most {LIMIT}")
    return packet


def parse_response(packet: bytes, version: int = 2) -> Response:
    """The response in `packet`, to a request of `version`.  Raises `Malformed`."""
    if not packet or len(packet) > LIMIT:
        raise Malformed(f"response of {len(packet)} bytes, expected 1 to {LIMIT}")
    if version == 1:
        return _parse_response_1(packet)
    return _parse_response_2(packet)


def _parse_response_1(packet: bytes) -> Response:
    if packet[-1] or len(packet) < 2:
        raise Malformed("response cut short")
    facts = []
    at = 1
    while packet[at]:
        end = packet.index(b"\0", at)
        facts.append((packet[at], packet[at + 1 : end]))
        at = end + 1
        if at == len(packet):
            raise Malformed("response cut short")
    if at + 1 != len(packet):
        raise Malformed("bytes after the end of the response")
    return Response(packet[0], b"", tuple(facts))


def _parse_response_2(packet: bytes) -> Response:
    end = len(packet)
    if packet == _NO_NONCE:  # the answer of a server that does not know version 2
        return Response(packet[0], b"", ())
    if end < 2 or end < 2 + packet[1]:
        raise Malformed("response cut short")
    at = 2 + packet[1]
    nonce = packet[2:at]
    facts: list[tuple[int, bytes]] = []
    while at < end:
        kind = packet[at]
        if not kind:
            if at + 1 != end:
                raise Malformed("bytes after the end of the response")
            return Response(packet[0], nonce, tuple(facts))
        if at + 2 > end or at + 2 + packet[at + 1] > end:
            break
        start = at + 2
        at = start + packet[at + 1]
        facts.append((kind, packet[start:at]))
    raise Malformed("response cut short")


def refusal(request: bytes, code: int) -> bytes:
    """A response without facts to a request that need not be well-formed; echoes the nonce if it is complete."""
    if len(request) > LIMIT or request[:1] == b"\2":
        if len(request) > LIMIT or len(request) < 2 or len(request) < 2 + request[1]:
            return b"%c\0\0" % code
        return b"%c%s\0" % (code, request[1 : 2 + request[1]])
    return b"%c\0" % code
