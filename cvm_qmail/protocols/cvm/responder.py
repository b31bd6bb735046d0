"""From the bytes of a CVM request to those of its response.

Invariants: never raises, never answers more than 512 bytes, always echoes the nonce.  The order is the C program's:
parse, check the secret, ask the service, pack the facts.  No secret gets into an event.  Only this module and
`packets` know the codes of CVM.

Source: CVM protocol documents; cvm 0.97 (module_request.c, module_output.c).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cvm_qmail.answer import Answer, Facts, Kind, Outcome, Recipient, Unavailable, Verdict, new
from cvm_qmail.exits import describe_exception
from cvm_qmail.plugin import Challenge, Password, Proof
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Code, Credential, Fact
from cvm_qmail.service.events import NO_QUERY, Event, Query

REQUEST_LIMIT = packets.LIMIT
"""Bytes of a request."""

PROBE = b"\2\0\0"
"""A harmless request, to find out whether a server is listening."""


class Exchange(NamedTuple):
    """A response, and what the log and the cache need to know about it."""

    response: bytes
    event: Event | None
    """None: an empty request, which is not logged."""
    repeatable: bool
    """Whether the same request may get the same response again: an answer, and no password was checked."""


Pairs = tuple[tuple[int, bytes], ...]
"""Numbers and values of facts."""

_NUMBERS = tuple(int(Fact[field.upper()]) for field in Facts._fields)
"""The numbers of the fields of `Facts`."""

_DISPENSABLE = (
    Fact.REASON,
    Fact.MAILBOX,
    Fact.SYS_DIRECTORY,
    Fact.SYS_USERNAME,
    Fact.REALNAME,
    Fact.SHELL,
    Fact.GROUPNAME,
    Fact.DOMAIN,
)
"""Facts that are left out, in this order, until the rest fits."""

_CODES = {
    Kind.TEMPORARY: Code.IO,
    Kind.MISCONFIGURED: Code.CONFIG,
    Kind.NO_CREDENTIAL: Code.NOCRED,
    Kind.MALFORMED: Code.BAD_CLIDATA,
    Kind.TOO_LARGE: Code.BAD_MODDATA,
}

REASON_LIMIT = 64
"""Bytes of a reason word that are sent; a rejection with the longest nonce has room for more."""

_HARMLESS = frozenset(
    map(
        int,
        (Credential.ACCOUNT, Credential.DOMAIN, Credential.SECRET, Credential.REASON, Credential.FROM_SHADOW),
    )
)
"""Credentials of a request whose response may be cached: none of them can be a password."""

_OUT_OF_SCOPE = {
    Verdict.REJECTED: ((int(Fact.OUTOFSCOPE), b"0"),),
    Verdict.OUT_OF_SCOPE: ((int(Fact.OUTOFSCOPE), b"1"),),
}


def code_of(outcome: Outcome) -> int:
    """The response code for an outcome."""
    if isinstance(outcome, Unavailable):
        return _CODES[outcome.kind]
    return Code.SUCCESS if outcome.verdict is Verdict.ACCEPTED else Code.PERMFAIL


def temporary(request: bytes) -> bytes:
    """The response to a request that got no answer: a temporary failure."""
    return packets.refusal(request, Code.IO)


def responder(answer: Callable[[Query], Outcome], secret: bytes | None) -> Callable[[bytes, float], Exchange]:
    """Answers a request, given its bytes and the time when it began.

    `answer` never raises.  `secret` is CVM_LOOKUP_SECRET (None: unset; empty: none is required).
    """
    # A version 1 request has one credential beside the address; what it is depends on the mode.
    lone_credential = Credential.PASSWORD if secret is None else Credential.SECRET
    if secret:
        from hmac import compare_digest  # command mode must not pay for it needlessly

    def respond(packet: bytes, began: float) -> Exchange:
        try:
            request = packets.parse_request(packet, lone_credential)
        except packets.Malformed as bad:
            outcome: Outcome = Unavailable("malformed", str(bad), kind=Kind.MALFORMED)
            event = Event(NO_QUERY, outcome, began, packet, bad.reply) if packet else None
            return Exchange(bad.reply, event, repeatable=False)
        version, nonce, credentials = request
        recipient = new(Recipient, (credentials.get(1, b""), credentials.get(2)))
        harmless = credentials.keys() <= _HARMLESS
        query = new(Query, (recipient, None if harmless else _proof(credentials), 241 in credentials))
        # A login does not get the reason: "no such account" and "wrong password" must look the same.
        with_reason = harmless and credentials.get(240) == b""
        if secret and not compare_digest(credentials.get(4, b""), secret):
            with_reason = False
            outcome = Unavailable("wrong-secret" if credentials.get(4) else "no-secret", kind=Kind.NO_CREDENTIAL)
        else:
            outcome = answer(query)
        try:
            outcome, response = response_to(outcome, version, nonce, with_reason=with_reason)
        except Exception:  # noqa: BLE001 a plug-in's facts that cannot be packed must not end the server
            outcome = Unavailable("internal-error", describe_exception())
            response = packets.pack_response(version, nonce, Code.IO)
        repeatable = harmless and isinstance(outcome, Answer)
        return new(Exchange, (response, new(Event, (query, outcome, began, packet, response)), repeatable))

    return respond


def _proof(credentials: Mapping[int, bytes]) -> Proof | None:
    if (password := credentials.get(Credential.PASSWORD)) is not None:
        return Password(password)
    response = credentials.get(Credential.RESPONSE)
    if response is None:
        return None
    challenge, kind = credentials.get(Credential.CHALLENGE, b""), credentials.get(Credential.RESPONSE_TYPE, b"")
    return Challenge(challenge, response, kind)


def response_to(
    outcome: Outcome, version: int = 2, nonce: bytes = b"", *, with_reason: bool = False
) -> tuple[Outcome, bytes]:
    """The outcome that is sent, and its packet; with the reason word only if the request asked for it.

    It differs from `outcome` if the facts of an acceptance do not fit into a packet.  Raises TypeError
    and the like for facts of the wrong types.
    """
    reason = _reason(outcome.reason) if with_reason else ()
    if isinstance(outcome, Unavailable):
        return outcome, packets.pack_response(version, nonce, _CODES[outcome.kind], reason)
    if outcome.verdict is not Verdict.ACCEPTED:
        return outcome, packets.pack_response(version, nonce, Code.PERMFAIL, _OUT_OF_SCOPE[outcome.verdict] + reason)
    response = _acceptance(version, nonce, outcome.facts, reason)
    if response is not None:
        return outcome, response
    error = Unavailable(outcome.reason, outcome.detail, outcome.where, Kind.TOO_LARGE)
    error.user = outcome.user
    return error, packets.pack_response(version, nonce, Code.BAD_MODDATA)


def _reason(word: str) -> Pairs:
    return ((int(Fact.REASON), word.encode("ascii", "backslashreplace")[:REASON_LIMIT]),)


def _acceptance(version: int, nonce: bytes, facts: Facts | None, reason: Pairs) -> bytes | None:
    """The packet of an acceptance, with as many facts as fit; None if the required ones do not."""
    if facts is None:
        raise TypeError
    values = (facts[0], b"%d" % facts[1], b"%d" % facts[2], *facts[3:])
    pairs = [*zip(_NUMBERS, values, strict=True), *reason]
    try:
        return packets.pack_response(version, nonce, 0, pairs)
    except packets.Malformed:
        return _shortened(version, nonce, [(number, value) for number, value in pairs if value is not None])


def _shortened(version: int, nonce: bytes, pairs: list[tuple[int, bytes]]) -> bytes | None:
    if version == 2:
        pairs = [(n, v) for n, v in pairs if len(v) <= packets.VALUE_LIMIT or n not in _DISPENSABLE]
    for dispensable in (None, *_DISPENSABLE):
        pairs = [(n, v) for n, v in pairs if n != dispensable]
        try:
            return packets.pack_response(version, nonce, 0, pairs)
        except packets.Malformed:
            pass
    return None
