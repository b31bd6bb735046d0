"""A lookup from the client's end: a recipient to a request, and a response to its result.

Invariants: an answer is used only if it is a complete, well-formed packet with the nonce of its request and with
the facts that clients require of an acceptance.  Anything else raises `NoAnswer`: a temporary failure.  The reason
comes by credential and fact 240, which other servers ignore; it is a word, or nothing.

Source: CVM protocol documents; cvm 0.97 (v2client.c).
"""

from __future__ import annotations

import re
from functools import lru_cache

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Code, Credential, Fact
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome, Rejection, rejection_of

LIMIT = packets.LIMIT
"""Bytes of a response."""

SECRET_LIMIT = packets.VALUE_LIMIT
"""Bytes of a secret that fit into a request."""

_ACCOUNT, _DOMAIN, _SECRET = (bytes((kind,)) for kind in (Credential.ACCOUNT, Credential.DOMAIN, Credential.SECRET))

_REASON = bytes((Credential.REASON, 0, 0))
"""The last credential, which is empty, and the end of the packet."""

_KEPT = 2048
"""The number of responses whose meaning is cached: a module sends the same ones again and again."""

_DEMANDED = {Fact.USERNAME, Fact.USERID, Fact.GROUPID, Fact.DIRECTORY}

_WORD = re.compile(rb"[a-z][a-z0-9-]{0,63}")


class NoAnswer(Exception):
    """No usable answer came: a reason word, and what happened."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class TooLong(Exception):
    """The address does not fit into a request."""


def request(recipient: Recipient, secret: bytes, nonce: bytes) -> bytes:
    """The packet that asks about a recipient and its reason; an empty secret is not sent.  Raises `TooLong`."""
    account, domain = recipient
    try:
        parts = [b"\2", _value(nonce), _ACCOUNT, _value(account)]
        if domain is not None:
            parts += (_DOMAIN, _value(domain))
        if secret:
            parts += (_SECRET, _value(secret))
    except ValueError:
        raise TooLong("a value of more than 255 bytes") from None
    parts.append(_REASON)
    packet = b"".join(parts)
    if len(packet) > LIMIT:
        raise TooLong(f"request of {len(packet)} bytes, expected at most {LIMIT}")
    return packet


def _value(value: bytes) -> bytes:
    """A value after its length.  Raises ValueError if the length is more than 255."""
    return bytes((len(value),)) + value


def nonce_of(packet: bytes) -> bytes:
    """The nonce of a request or response of version 2; empty, if it has none."""
    return packet[2 : 2 + packet[1]] if len(packet) > 1 else b""


@lru_cache(_KEPT)
def is_whole(packet: bytes) -> bool:
    """Whether these bytes are a complete response of version 2, and not its beginning."""
    try:
        packets.parse_response(packet)
    except packets.Malformed:
        return False
    return True


def result_of(packet: bytes, nonce: bytes) -> Result:
    """The result in a response.  Raises `NoAnswer`."""
    return _result_of(packet, nonce) if nonce else _kept(packet)


def _result_of(packet: bytes, nonce: bytes) -> Result:
    if not packet:
        raise NoAnswer("backend-down", "closed without an answer")
    try:
        code, echo, facts = packets.parse_response(packet)
    except packets.Malformed as bad:
        raise NoAnswer("backend-nonsense", str(bad)) from None
    if echo != nonce:
        raise NoAnswer("backend-nonsense", "not the answer to this question")
    return _result(code, dict(facts))


@lru_cache(_KEPT)
def _kept(packet: bytes) -> Result:
    return _result_of(packet, b"")


def _result(code: int, facts: dict[int, bytes]) -> Result:
    word = _WORD.fullmatch(facts.get(Fact.REASON, b""))
    reason = word[0].decode() if word else ""
    match code:
        case Code.SUCCESS if facts.keys() >= _DEMANDED:
            return Result(Outcome.ACCEPTED, reason, user=facts[Fact.USERNAME])
        case Code.PERMFAIL:
            return _refusal(facts.get(Fact.OUTOFSCOPE, b"0"), reason)
        case Code.NOCRED:
            raise NoAnswer("backend-secret", "the module requires a different CVM_LOOKUP_SECRET")
        case Code.SUCCESS | Code.BAD_CLIDATA | Code.BAD_MODDATA:
            raise NoAnswer("backend-nonsense", f"code {code} with the facts {sorted(facts)}")
    full = rejection_of(reason) is Rejection.FULL
    return Result(Outcome.TEMPORARY_FAILURE, reason or "backend-error", Rejection.FULL if full else None)


def _refusal(scope: bytes, reason: str) -> Result:
    if scope == b"0":
        return Result(Outcome.REJECTED, reason, rejection_of(reason))
    if scope.isdigit() and int(scope):
        return Result(Outcome.OUT_OF_SCOPE, reason)
    raise NoAnswer("backend-nonsense", f"out of scope: found {scope[:20]!r}, expected 0 or 1")
