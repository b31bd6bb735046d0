"""CVM packets taken apart for display, and put together: the packets of `packets`, declared with construct.

Invariants: only the declaration decides.  It was not derived from the code of `packets`, and a property test
compares the two: for any bytes both give the same result, or both raise `Malformed`.  The server never imports this
file (it is twenty to fifty times slower); `cvmctl decode` and the tests do.

Unlike `packets`, it keeps every value in its place, even a repeated one and one of an unknown type. `walk_request`
and `walk_response` also return where in the packet each part is, and the parts of a damaged packet up to the damage.

Source: the protocol documents of cvm 0.97.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, NamedTuple

from construct import (  # type: ignore[import-untyped]  # it has no stubs
    Byte,
    Const,
    ConstError,
    ConstructError,
    ExprAdapter,
    GreedyBytes,
    If,
    NullTerminated,
    Prefixed,
    RawCopy,
    RepeatUntil,
    Struct,
    Terminated,
    this,
)

from cvm_qmail.protocols.cvm.packets import LIMIT, Code, Credential, Fact, Malformed


class Value(NamedTuple):
    """One credential or fact."""

    type: int
    name: str
    """The name of its type; empty: the type has none."""
    data: bytes


class DissectedRequest(NamedTuple):
    """A request, its parts in order."""

    version: int
    nonce: bytes
    credentials: tuple[Value, ...]


class DissectedResponse(NamedTuple):
    """A response, its parts in order."""

    code: int
    meaning: str
    """The name of the code; empty: it has none."""
    nonce: bytes
    facts: tuple[Value, ...]


class Part(NamedTuple):
    """A part of a packet, and where it is."""

    offset: int
    size: int
    """Its size in bytes, type and length included."""
    name: str
    """The name of its type, or version, code, nonce, credential or end; empty: the type has no name."""
    type: int | None
    """None: it has none."""
    data: bytes


class Damage(NamedTuple):
    """Where a packet is damaged."""

    offset: int
    """Where the damaged part begins."""
    what: str
    """Its name, and what is wrong; without any bytes of the packet."""


class Walk(NamedTuple):
    """The parts of a packet up to the damage, if there is one."""

    parts: tuple[Part, ...]
    damage: Damage | None


# -- the declaration ----------------------------------------------------------------------------------

_Counted = Prefixed(Byte, GreedyBytes)
_String = NullTerminated(GreedyBytes)


def _values(form: Any) -> Any:
    """Pairs of a type and a value of this form, until a type of zero."""
    pair = Struct("type" / Byte, "data" / If(this.type, form))
    return ExprAdapter(
        RepeatUntil(lambda pair, _so_far, _context: not pair["type"], pair),
        decoder=lambda pairs, _: [(pair["type"], pair["data"]) for pair in pairs[:-1]],
        encoder=lambda pairs, _: [*({"type": kind, "data": data} for kind, data in pairs), {"type": 0, "data": None}],
    )


_REQUESTS = {
    1: Struct(
        "version" / Const(1, Byte),
        "account" / _String,
        "domain" / _String,
        "credential" / _String,  # empty: there is none, and this was the end
        "end" / If(this.credential, Const(b"\0")),
        Terminated,
    ),
    2: Struct("version" / Const(2, Byte), "nonce" / _Counted, "credentials" / _values(_Counted), Terminated),
}

_RESPONSES = {
    1: Struct("code" / Byte, "facts" / _values(_String), Terminated),
    2: Struct("code" / Byte, "nonce" / _Counted, "facts" / _values(_Counted), Terminated),
}

_VERSION_UNKNOWN = b"\x02\x00"
"""The answer of a server that does not speak the version of the request: a response of version 1."""

# -- taking apart -------------------------------------------------------------------------------------


def dissect_request(packet: bytes, lone_credential: int = Credential.PASSWORD) -> DissectedRequest:
    """The parts of a request.  `lone_credential` is the type of the third string of version 1.

    Raises `Malformed`.
    """
    declared = _REQUESTS.get(packet[0]) if packet else None
    if declared is None:
        raise Malformed(f"version: {packet[0]}, expected 1 or 2" if packet else "version: missing, expected 1 or 2")
    parts = _parse(declared, packet)
    if parts.version == 2:
        pairs = parts.credentials
    else:
        given = ((Credential.DOMAIN, parts.domain), (lone_credential, parts.credential))
        pairs = [(Credential.ACCOUNT, parts.account), *((kind, data) for kind, data in given if data)]
    return DissectedRequest(parts.version, parts.get("nonce", b""), _named(pairs, Credential))


def dissect_response(packet: bytes, version: int = 2) -> DissectedResponse:
    """The parts of a response to a request of `version`.  Raises `Malformed`."""
    parts = _parse(_RESPONSES[1 if version == 1 or packet == _VERSION_UNKNOWN else 2], packet)
    return DissectedResponse(parts.code, _name(parts.code, Code), parts.get("nonce", b""), _named(parts.facts, Fact))


# -- walking along --------------------------------------------------------------------------------------


def walk_request(packet: bytes) -> Walk:
    """The parts of what should be a request.  The third string of version 1 has no type: it is `credential`."""
    return _walk(packet, _along_request)


def walk_response(packet: bytes, version: int = 2) -> Walk:
    """The parts of what should be a response to a request of `version`."""
    form = _String if version == 1 or packet == _VERSION_UNKNOWN else _Counted

    def along(steps: _Steps) -> None:
        steps.take("code", Byte)
        if form is _Counted:
            steps.take("nonce", _Counted)
        steps.values(form, Fact)

    return _walk(packet, along)


def _along_request(steps: _Steps) -> None:
    version = steps.take("version", Byte)
    if version == 2:
        steps.take("nonce", _Counted)
        steps.values(_Counted, Credential)
    elif version == 1:
        for kind in (Credential.ACCOUNT, Credential.DOMAIN):
            steps.take(kind.name, _String, kind)
        if steps.take("credential", _String):
            steps.take("end", Const(b"\0"))
        else:  # there is none, and this was the end
            steps.parts[-1] = steps.parts[-1]._replace(name="end")
    else:
        del steps.parts[:]
        raise _Stop(0, f"version: {version}, expected 1 or 2")


class _Stop(Exception):
    """The walk ends here."""


class _Steps:
    """How far a walk has come."""

    def __init__(self, packet: bytes) -> None:
        self._rest = packet
        self._at = 0
        self.parts: list[Part] = []

    def take(self, name: str, form: Any, kind: int | None = None, start: int | None = None) -> Any:
        """The next part (which began at `start`, with its type)."""
        at = self._at if start is None else start
        try:
            parsed = RawCopy(form).parse(self._rest)
        except ConstError:
            raise _Stop(at, f"{name}: something else than the zero byte that ends a packet") from None
        except ConstructError as error:
            said = str(error).splitlines()[-1].replace("stream read less than specified amount", "cut short")
            raise _Stop(at, f"{name or f'value of type {kind}'}: {said}") from None
        value = parsed.value
        self._rest = self._rest[parsed.length :]
        self._at += parsed.length
        data = value if isinstance(value, bytes) else bytes([value or 0])
        self.parts.append(Part(at, self._at - at, name, kind, data))
        return value

    def values(self, form: Any, names: type[IntEnum]) -> None:
        """All pairs of a type and a value, and the end."""
        while kind := self.take("type", Byte):
            start = self.parts.pop().offset
            self.take(_name(kind, names), form, kind, start)
        self.parts[-1] = self.parts[-1]._replace(name="end")

    def finish(self, length: int) -> None:
        """The packet has to be over."""
        if self._rest:
            raise _Stop(self._at, f"{len(self._rest)} bytes after the end")
        if length > LIMIT:
            raise _Stop(LIMIT, f"packet: {length} bytes, expected at most {LIMIT}")


def _walk(packet: bytes, along: Callable[[_Steps], None]) -> Walk:
    steps = _Steps(packet)
    try:
        along(steps)
        steps.finish(len(packet))
    except _Stop as stop:
        return Walk(tuple(steps.parts), Damage(*stop.args))
    return Walk(tuple(steps.parts), None)


# -- putting together ---------------------------------------------------------------------------------


def build_request(version: int, nonce: bytes, credentials: Iterable[tuple[int, bytes]]) -> bytes:
    """A request of pairs of a type and a value.  Raises `Malformed` if its version cannot express it."""
    if version == 2:
        return _build(_REQUESTS[2], nonce=nonce, credentials=list(credentials))
    if version != 1:
        raise Malformed(f"version: {version}, expected 1 or 2")
    given = dict(credentials)
    account, domain = given.pop(Credential.ACCOUNT, b""), given.pop(Credential.DOMAIN, b"")
    lone = list(given.values())
    if nonce or len(lone) > 1 or lone == [b""]:
        raise Malformed("version 1: no nonce, and at most one credential that is not empty, can be expressed")
    return _build(_REQUESTS[1], account=account, domain=domain, credential=lone[0] if lone else b"")


def build_response(version: int, nonce: bytes, code: int, facts: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """A response of pairs of a type and a value.  Raises `Malformed` if its version cannot express it."""
    if version != 1:
        return _build(_RESPONSES[2], code=code, nonce=nonce, facts=list(facts))
    if nonce:
        raise Malformed("version 1: no nonce can be expressed")
    return _build(_RESPONSES[1], code=code, facts=list(facts))


# -- construct's errors are turned into `Malformed` here --------------------------------------------------------------


def _parse(declared: Any, packet: bytes) -> Any:
    if len(packet) > LIMIT:
        raise Malformed(f"packet: {len(packet)} bytes, expected at most {LIMIT}")
    try:
        return declared.parse(packet)
    except ConstructError as error:
        raise Malformed(_explain(error)) from None


def _build(declared: Any, **parts: Any) -> bytes:
    """The packet.  Raises `Malformed` for a value that would not be parsed back (a NUL in a string, a type of zero)."""
    try:
        packet: bytes = declared.build(parts)
    except ConstructError as error:
        raise Malformed(_explain(error)) from None
    back = _parse(declared, packet)
    for name, value in parts.items():
        if back[name] != value:
            raise Malformed(f"{name}: cannot be expressed in this version")
    return packet


def _explain(error: ConstructError) -> str:
    place = (error.path or "").partition(" -> ")[2] or "packet"
    return f"{place}: {str(error).splitlines()[-1]}"


def _named(pairs: Iterable[tuple[int, bytes]], names: type[IntEnum]) -> tuple[Value, ...]:
    return tuple(Value(int(kind), _name(kind, names), data) for kind, data in pairs)


def _name(number: int, names: type[IntEnum]) -> str:
    return names(number).name if number in names.__members__.values() else ""
