"""One request's bytes to its response's bytes.

Law: never raises, never answers more than 512 bytes, always echoes the nonce.  The order of work is
the C program's: parse, secret, look up, authenticate, facts.  The only broad ``except`` of the
tree is here: what nobody foresaw is reported with its traceback and answered as temporary.
Nothing secret reaches `report`.

Source: CVM protocol documents; cvm 0.97 (module_request.c, module_output.c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from cvm_qmail import wire
from cvm_qmail.answer import DRY_RUN, Answer, Facts, Recipient, Unavailable, Verdict
from cvm_qmail.wire import Code, Credential, Fact

Respond = Callable[[bytes], bytes]


class Event(NamedTuple):
    """What became of a request, for the log."""

    mark: str
    """``+`` accepted, ``-`` rejected, ``?`` anything else."""
    code: int
    account: bytes
    domain: bytes | None
    user: bytes
    reason: str
    where: bytes
    began: float
    """When it began, by the responder's clock."""
    detail: str


Noted = Any
"""What a `Report` makes of an event, so that the same need not be written out again."""


class Memory(Protocol):
    """What was answered a moment ago.  Neither call raises."""

    def get(self, packet: bytes) -> tuple[bytes, Noted] | None:
        """The response to this very packet and what was noted of it, if all that it rests on is the same."""
        ...

    def put(self, packet: bytes, response: bytes, noted: Noted) -> None:
        """Keeps the response that was made for this packet just now, if that can be vouched for later."""
        ...


Report = Callable[[Event], Noted]
Again = Callable[[Noted, float], None]
"""Reports that an answer was given again to a request that began then."""
Ask = Callable[[Recipient, "wire.Request"], Answer]
Pardon = Callable[[Recipient, "Facts | None"], "Facts | None"]
"""The facts with which a rejection, which may have some, is accepted in a dry run; None: it stays one."""

_NUMBERS = tuple(int(Fact[field.upper()]) for field in Facts._fields)
"""The numbers of the fields of `Facts`."""

_DISPENSABLE = (
    Fact.MAILBOX,
    Fact.SYS_DIRECTORY,
    Fact.SYS_USERNAME,
    Fact.REALNAME,
    Fact.SHELL,
    Fact.GROUPNAME,
    Fact.DOMAIN,
)
"""What is left out, in this order, until the rest fits."""

_NO_PROOF = frozenset({int(Credential.ACCOUNT), int(Credential.DOMAIN), int(Credential.SECRET)})

_TEMPORARY = frozenset(Code) - {Code.SUCCESS, Code.PERMFAIL}

_OUT_OF_SCOPE = {
    Verdict.REJECT: ((int(Fact.OUTOFSCOPE), b"0"),),
    Verdict.PASS: ((int(Fact.OUTOFSCOPE), b"1"),),
}


def _forget(_noted: Noted, _began: float) -> None:
    pass


def responder(
    ask: Ask,
    *,
    secret: bytes | None,
    report: Report,
    clock: Callable[[], float],
    unforeseen: Callable[[], str],
    memory: Memory | None = None,
    again: Again = _forget,
    pardon: Pardon | None = None,
) -> Respond:
    """A `Respond` that puts each request to `ask`, if `memory` does not know the response.

    `secret` is CVM_LOOKUP_SECRET (None: unset; empty: none is wanted).  `unforeseen` describes the
    exception that is being handled, for `report`.  What `memory` knew goes to `again` instead.
    `pardon` is there in a dry run only.
    """
    lone_credential = Credential.PASSWORD if secret is None else Credential.SECRET
    if secret:
        from hmac import compare_digest

    def respond(packet: bytes) -> bytes:
        began = clock()
        if memory is not None and (known := memory.get(packet)) is not None:
            again(known[1], began)
            return known[0]
        try:
            request = wire.parse_request(packet, lone_credential)
        except wire.Malformed as bad:
            if packet:
                report(Event("?", Code.BAD_CLIDATA, b"", None, b"", "malformed", b"", began, str(bad)))
            return bad.reply
        version, nonce, credentials = request
        account = credentials.get(1, b"")
        domain = credentials.get(2)
        if secret and not compare_digest(credentials.get(4, b""), secret):
            reason = "wrong-secret" if credentials.get(4) else "no-secret"
            report(Event("?", Code.NOCRED, account, domain, b"", reason, b"", began, ""))
            return wire.pack_response(version, nonce, Code.NOCRED)
        try:
            detail = ""
            recipient = Recipient(account, domain)
            verdict, reason, user, where, facts = ask(recipient, request)
            if pardon is not None and verdict is Verdict.REJECT and (lent := pardon(recipient, facts)) is not None:
                verdict, facts, detail = Verdict.ACCEPT, lent, DRY_RUN
            if verdict is Verdict.ACCEPT:
                code, response = _accept(version, nonce, facts)
                mark = "?" if code else "+"
            else:
                code, mark = Code.PERMFAIL, "-"
                response = wire.pack_response(version, nonce, code, _OUT_OF_SCOPE[verdict])
        except Unavailable as trouble:
            code = trouble.code if trouble.code in _TEMPORARY else Code.IO
            where, detail = trouble.where, trouble.detail
            report(Event("?", code, account, domain, trouble.user, trouble.reason, where, began, detail))
            return wire.pack_response(version, nonce, code)
        except Exception:  # noqa: BLE001  the one place for what nobody foresaw: never a guess, never a dead server
            report(Event("?", Code.IO, account, domain, b"", "unforeseen", b"", began, unforeseen()))
            return wire.pack_response(version, nonce, Code.IO)
        noted = report(Event(mark, code, account, domain, user, reason, where, began, detail))
        if memory is not None and credentials.keys() <= _NO_PROOF:
            memory.put(packet, response, noted)
        return response

    return respond


def _accept(version: int, nonce: bytes, facts: Facts | None) -> tuple[int, bytes]:
    """The code and packet of an acceptance, with as many facts as fit.  An acceptance without facts is a fault."""
    if facts is None:
        raise TypeError
    values = (facts[0], b"%d" % facts[1], b"%d" % facts[2], *facts[3:])
    pairs = [(number, value) for number, value in zip(_NUMBERS, values, strict=True) if value is not None]
    try:
        return 0, wire.pack_response(version, nonce, 0, pairs)
    except wire.Malformed:
        return _shortened(version, nonce, pairs)


def _shortened(version: int, nonce: bytes, pairs: list[tuple[int, bytes]]) -> tuple[int, bytes]:
    if version == 2:
        pairs = [(n, v) for n, v in pairs if len(v) <= wire.VALUE_LIMIT or n not in _DISPENSABLE]
    for dispensable in (None, *_DISPENSABLE):
        pairs = [(n, v) for n, v in pairs if n != dispensable]
        try:
            return 0, wire.pack_response(version, nonce, 0, pairs)
        except wire.Malformed:
            pass
    return Code.BAD_MODDATA, wire.pack_response(version, nonce, Code.BAD_MODDATA)
